"""The kernels' arguments, as structures in the order of the sources."""

import ctypes


def _structure(name: str, *, pointers: str, longs: str, ints: str) -> type[ctypes.Structure]:
    fields = [
        *((field, ctypes.c_void_p) for field in pointers.split()),
        *((field, ctypes.c_int64) for field in longs.split()),
        *((field, ctypes.c_int) for field in ints.split()),
    ]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


Forward = _structure(
    "Forward",
    pointers="u delta A B C D z bias order ends sums y saved last",
    longs="s_ub s_uh s_deltab s_deltah s_deltak s_Bb s_Bh s_Bk s_Cb s_Ch s_Ck s_zb s_zg s_yb s_yg",
    ints="s_ul s_deltal s_Bl s_Cl s_zl s_yl length chunk chunks groups routes e n parts",
)

Chunk = _structure(
    "Chunk",
    pointers="x delta A B z bias order ends sums",
    longs="s_xb s_xg s_deltab s_deltah s_deltak s_Bb s_Bh s_Bk s_zb s_zg",
    ints="s_xl s_deltal s_Bl s_zl length chunk chunks groups routes e n parts",
)

Backward = _structure(
    "Backward",
    pointers="dy u delta A B C D z bias order saved initial ends sums du ddelta dB dC dz dA dD dbias",
    longs="s_dyb s_dyg s_ub s_uh s_deltab s_deltah s_deltak s_Bb s_Bh s_Bk s_Cb s_Ch s_Ck s_zb s_zg s_dub s_dug "
    "s_ddeltab s_ddeltah s_ddeltak s_dBpart s_dBb s_dBh s_dBk s_dzb s_dzg s_row",
    ints="s_dyl s_ul s_deltal s_Bl s_Cl s_zl s_dul s_ddeltal s_dBl s_dzl length chunk chunks groups routes e n parts",
)

SumRows = _structure("SumRows", pointers="p_from p_to", longs="row", ints="rows columns")

SumParts = _structure(
    "SumParts",
    pointers="p_from dB dC",
    longs="size s_Bb s_Bl s_Bh s_Bk s_Cb s_Cl s_Ch s_Ck",
    ints="parts length heads routes n",
)
