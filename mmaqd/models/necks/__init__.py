from .stream_fpn import StreamFPN, is_rectified

__all__ = ['StreamFPN', 'is_rectified']
