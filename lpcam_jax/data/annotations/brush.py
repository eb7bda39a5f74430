"""Label Studio's code of a region painted with a brush, both ways.

The picture is four channels (red, green, blue, alpha) of a byte, row by row, channel by channel: what alpha does not
leave transparent is the region. A code is a list of bytes; read as bits, the highest first, they are

    32 bits     number of values, 4 H W
    5 bits      bits of a value - 1
    4 x 4 bits  four sizes - 1
    then blocks: 1 bit, whether one value is repeated; 2 bits, which of the sizes; as many bits, number of values - 1;
    and the value, or all the values.

Source: what label-studio-converter reads and writes.
"""

import numpy as np

_SIZES = (3, 4, 8, 16)  # bits
_LONGEST = 1 << _SIZES[-1]


def encode(inside: np.ndarray) -> list[int]:
    """The code of a region, bool (H, W), all four channels of which are 255 inside and 0 outside."""
    flat = inside.ravel()
    edges = np.append(np.flatnonzero(np.diff(flat, prepend=~flat[:1])), flat.size)
    bits = [f"{4 * flat.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(edges[:-1].tolist(), (4 * np.diff(edges)).tolist(), strict=True):
        value = "1" * 8 if flat[start] else "0" * 8
        for done in range(0, length, _LONGEST):
            number = min(length - done, _LONGEST) - 1
            which = next(which for which, size in enumerate(_SIZES) if number >> size == 0)
            bits.append(f"1{which:02b}{number:0{_SIZES[which]}b}{value}")
    text = "".join(bits)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tolist()


def decode(code: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The region of a code.

    Args:
        code: uint8 (n,).
        size: (H, W) of the picture.

    Returns:
        bool (H, W), where alpha is not 0.

    Raises:
        ValueError: it is no code, or one of a picture of another size.
    """
    bits = np.unpackbits(code)
    position = 0

    def number(count: int) -> int:
        nonlocal position
        if position + count > bits.size:
            raise ValueError("its code ends too early")
        position += count
        return int("".join(map(str, bits[position - count : position].tolist())), 2)

    if number(32) != 4 * size[0] * size[1]:
        raise ValueError("its code is of a picture of another size")
    word = number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values, done = np.zeros(4 * size[0] * size[1], bool), 0
    while done < values.size:
        is_repeated = number(1)
        count = number(sizes[number(2)]) + 1
        if done + count > values.size:
            raise ValueError("its code is longer than the picture")
        if is_repeated:
            values[done : done + count] = number(word) > 0
        else:
            if position + word * count > bits.size:
                raise ValueError("its code ends too early")
            values[done : done + count] = bits[position : position + word * count].reshape(count, word).any(axis=1)
            position += word * count
        done += count
    return values.reshape(*size, 4)[..., 3]
