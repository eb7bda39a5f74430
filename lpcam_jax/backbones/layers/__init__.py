"""Convolution, pooling, norms and resizing that are exact on padded pictures.

Pictures of many sizes share one shape: padded at the right and bottom to a bucket, along with their true sizes. A
convolution pads with zeros; so as long as everything outside the valid region is zero, the valid region equals that
of the picture alone. Positions outside become non-zero only through batch norm's shift, so `keep_valid` before each
spatial layer is enough. Padding is always explicit; where it is not symmetric, more is at the bottom and right; and the
top left corner stays fixed. The sampling positions of a bilinear resize depend on the valid sizes alone, never on the
bucket.

A network of precision bfloat16 computes in float32 what is not a product, but stores in bfloat16 what goes from layer
to layer: a convolution returns its own dtype, everything else the dtype of its input. Parameters stay float32.

All arrays are NHWC. Sizes are int32 (b, 2), valid rows and columns; None means all.
"""
