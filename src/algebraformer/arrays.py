"""Arrays of other libraries: what kind they are, where they lie, and the way into this package and back.

Arrays of torch, JAX and `array_api_strict` in the memory of the processor are used as NumPy arrays, without a copy.
Those of torch, CuPy and JAX on a GPU are used as torch tensors, by DLPack and without a copy as well, see
`models.device`. What comes out is of the kind that went in, on the same device.

No library is imported here for an array of another one.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from algebraformer.errors import ArrayKindError

if TYPE_CHECKING:
    from types import ModuleType

DTYPES = ("bool", "int", "uint", "float32", "float64", "complex64", "complex128")
"""How names of the dtypes begin that other libraries' arrays may have. Half precision holds three digits: nothing that
is read of such a matrix, and no certificate, would mean what it says."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A library and a device.

    Attributes
    ----------
    library : str
        "numpy", "torch", "jax", "cupy" or "array_api_strict".
    device : object
        What the library calls it; None for NumPy.
    """

    library: str
    device: Any = None

    def __str__(self) -> str:
        return self.library if self.device is None else f"{self.library} on {self.device}"

    @property
    def on_host(self) -> bool:
        """Whether the arrays lie in the memory of the processor, where NumPy works on them."""
        if self.library == "torch":
            return bool(self.device.type == "cpu")
        if self.library == "jax":
            return bool(self.device.platform == "cpu")
        return self.library != "cupy"

    def numpy(self, array: Any) -> Any:
        """Return an array of this kind as NumPy's, which shares its memory on the host; gradients are left behind."""
        if self.library == "numpy":
            return array
        if self.library == "torch":
            return array.detach().cpu().resolve_conj().resolve_neg().numpy()
        return np.asarray(array.get() if self.library == "cupy" else array)

    def array(self, value: Any) -> Any:
        """Return a NumPy array, or a torch tensor on this device, as an array of this kind, on its device."""
        if self.library == "numpy":
            return value
        xp = sys.modules[{"jax": "jax.numpy"}.get(self.library, self.library)]
        if not isinstance(value, np.ndarray):
            return value if self.library == "torch" else xp.from_dlpack(value)
        if self.library == "torch":
            return xp.from_numpy(value if value.flags.writeable else value.copy()).to(self.device)
        return xp.asarray(value, device=self.device)


NUMPY = Kind("numpy")


def kind_of(**values: Any) -> Kind:
    """Return the kind of arrays that were given together, by their names; what is no array of a library is NumPy's.

    Raises
    ------
    ArrayKindError
        They are of several kinds, on several devices, of half precision, or on a device without float64.

    Examples
    --------
    >>> import numpy as np
    >>> kind_of(A=np.eye(2), b=[1.0, 2.0])
    Kind(library='numpy', device=None)
    """
    (first, value), *others = values.items()
    kind = _kind(first, value)
    check_kind(kind, first, **dict(others))
    return kind


def check_kind(kind: Kind, given: str, **values: Any) -> None:
    """Raise `ArrayKindError` unless arrays are of the kind of what was given before, under the name `given`."""
    for name, value in values.items():
        if (other := _kind(name, value)) != kind:
            raise ArrayKindError(
                f"{given} is of {kind}, {name} of {other}: expected arrays of one library on one device"
            )


def namespace(array: Any) -> ModuleType | Any:
    """Return the functions of the array API standard for arrays of this library."""
    return np if isinstance(array, np.ndarray) else array_api_compat.array_namespace(array)


def on_device(array: Any) -> bool:
    """Say whether it is a torch tensor that is worked on where it is, on a GPU."""
    return array_api_compat.is_torch_array(array) and not kind_of(array=array).on_host


def host(array: Any) -> Any:
    """Return an array as NumPy's, from whichever device: a copy, but where it lies on the host.

    Examples
    --------
    >>> import numpy as np
    >>> host(np.ones(2))
    array([1., 1.])
    """
    return array if isinstance(array, np.ndarray) else kind_of(array=array).numpy(array)


def beside(array: Any, value: Any) -> Any:
    """Return a NumPy array as one of the library of another array, on its device."""
    return value if isinstance(array, np.ndarray) else kind_of(array=array).array(np.asarray(value))


def real(array: Any) -> Any:
    """Return the real part of an array of any library; a real array as it is."""
    if isinstance(array, np.ndarray):
        return array.real
    return namespace(array).real(array) if is_complex(array) else array


def conj(array: Any) -> Any:
    """Return complex conjugates; a real array as it is."""
    return namespace(array).conj(array) if is_complex(array) else array


def split_parts(array: Any, axis: int) -> Any:
    """Return complex numbers as real ones, the imaginary parts behind the real ones along an axis.

    Examples
    --------
    >>> import numpy as np
    >>> split_parts(np.array([1 + 2j, 3j]), axis=0)
    array([1., 0., 2., 3.])
    """
    xp = namespace(array)
    return xp.concat((xp.real(array), xp.imag(array)), axis=axis)


def join_parts(array: Any) -> Any:
    """Return the complex numbers of which the last axis holds the real parts and behind them the imaginary ones."""
    k = array.shape[-1] // 2
    return array[..., :k] + 1j * array[..., k:]


def power_of_two(array: Any) -> Any:
    """Return the largest powers of two that are at most these positive numbers.

    Examples
    --------
    >>> import numpy as np
    >>> power_of_two(np.array([0.3, 1.0, 5.0]))
    array([0.25, 1.  , 4.  ])
    """
    library = np if isinstance(array, np.ndarray) else sys.modules[kind_of(array=array).library]
    if not hasattr(library, "frexp"):
        return beside(array, power_of_two(host(array)))
    mantissa, _ = library.frexp(array)
    return array / (2 * mantissa)  # exact, and ldexp of torch goes through a power that need not be


def is_complex(array: Any) -> bool:
    """Say whether an array of any library has a complex dtype."""
    if isinstance(array, np.ndarray):
        return array.dtype.kind == "c"
    return bool(namespace(array).isdtype(array.dtype, "complex floating"))


def needs_gradient(*values: Any) -> bool:
    """Say whether one of these is a torch tensor that a gradient is wanted for, here and now."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in tensors)
    return bool(wanted or any(map(in_transform, tensors)))


def in_transform(value: Any) -> bool:
    """Say whether this is a torch tensor inside a transform of `torch.func`, which has no values to look at."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return False
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))


def _kind(name: str, value: Any) -> Kind:
    """Return the kind of one array; `ArrayKindError` if it is not one that can be used."""
    if type(value) is np.ndarray:
        return NUMPY
    if array_api_compat.is_torch_array(value):
        kind = Kind("torch", value.device)
        if kind.device.type not in ("cpu", "cuda"):
            raise ArrayKindError(
                f"{name} is on {kind.device}, expected a torch tensor on cpu or cuda: float64 is needed"
            )
        if value.layout is not sys.modules["torch"].strided:
            raise ArrayKindError(f"{name} is a torch tensor of layout {value.layout}, expected a dense one")
    elif array_api_compat.is_jax_array(value):
        kind = Kind("jax", value.device)
        if kind.device.platform not in ("cpu", "gpu", "cuda"):
            raise ArrayKindError(f"{name} is a JAX array on {kind.device}, expected one on cpu or gpu")
        if not sys.modules["jax"].config.jax_enable_x64:
            raise ArrayKindError(
                f"{name} is a JAX array, and JAX computes in single precision: "
                'call jax.config.update("jax_enable_x64", True) first'
            )
    elif array_api_compat.is_cupy_array(value):
        kind = Kind("cupy", value.device)
    elif array_api_compat.is_dask_array(value):
        raise ArrayKindError(f"{name} is a Dask array: use algebraformer.distributed.solve")
    elif _is_strict(value):
        kind = Kind("array_api_strict", value.device)
    else:
        return NUMPY
    dtype = str(value.dtype).removeprefix("torch.").removeprefix("array_api_strict.")
    if not dtype.startswith(DTYPES):
        raise ArrayKindError(f"{name} has dtype {dtype}, expected float32, float64, complex64 or complex128")
    return kind


def _is_strict(value: Any) -> bool:
    """Say whether it is an array of array_api_strict, with which the tests see that the standard is kept."""
    return type(value).__module__.partition(".")[0] == "array_api_strict" and hasattr(value, "__array_namespace__")
