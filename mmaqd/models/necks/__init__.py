from .stream_fpn import StreamFPN

__all__ = ['StreamFPN']
