//! The end of the stack, always: init is built without unwind tables, so there is nothing to walk.
//!
//! The standard library's panic message would have the stack walked by libunwind all the same, and link all of it: a
//! fiftieth of the binary. With these names given, the linker leaves it out.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI's exception handling.
const END_OF_STACK: c_int = 5;

// SAFETY: the ABI's name, with its signature; nothing is called and nothing is read.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(
    _visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    _argument: *mut c_void,
) -> c_int {
    END_OF_STACK
}

// SAFETY: the ABI's name, with its signature; there is no frame that it could be asked for.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIP(_frame: *mut c_void) -> usize {
    0
}
