from .fold_input_std import FoldInputStd

__all__ = ['FoldInputStd']
