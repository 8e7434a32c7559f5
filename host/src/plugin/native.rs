//! The one module with `unsafe`: loading native code, and what the start of a confined process needs of the kernel
//! that no safe wrapper offers.
#![expect(unsafe_code, reason = "each function says what makes it sound")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::thread::UnshareFlags;
use wasmtime::component::Component;
use wasmtime::{CustomCodeMemory, Engine};

/// Loads native code that this program's own compiler process made, and maps it for as long as this process lives. The
/// descriptor is closed then.
///
/// # Errors
///
/// Code for another engine, other settings or a CPU with other features is refused. The kernel's.
pub(super) fn load(engine: &Engine, file: OwnedFd, bytes: u64) -> wasmtime::Result<Component> {
    let length = usize::try_from(bytes)?;
    // SAFETY: a new mapping, at an address of the kernel's choice, that nothing else refers to.
    let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
    drop(file);
    let start = NonNull::new(start.cast()).ok_or_else(|| wasmtime::Error::msg("code was mapped at address 0"))?;
    // SAFETY: the descriptor comes from the host, over the socket it gave us. The host makes the code with `compiler`, from
    // a component that the engine validated; nothing precompiled is taken from anybody else. Even a deceived compiler
    // gains nothing here: this process has its walls up before it loads anything. The mapping is never taken off, and
    // what is behind it does not change: the memory is sealed, and files of the store are replaced, not written.
    unsafe { Component::deserialize_raw(engine, NonNull::slice_from_raw_parts(start, length)) }
}

/// Loads native code that this program carries, where it lies.
///
/// # Errors
///
/// As for [`load`].
pub(super) fn load_own(engine: &Engine, code: &'static [u8]) -> wasmtime::Result<Component> {
    // SAFETY: the build made it with this very engine, from the built-in component; it is constant, and at the beginning
    // of a page.
    unsafe { Component::deserialize_raw(engine, NonNull::from(code)) }
}

/// Makes mapped code executable, which the engine leaves to us: it did not map it.
///
/// Where a processor's caches need it, the kernel makes them agree when a page of a file becomes executable.
pub(super) struct MappedCode;

impl MappedCode {
    fn protect(start: *const u8, length: usize, flags: MprotectFlags) -> wasmtime::Result<()> {
        // SAFETY: the engine names the text of code it was given by `load` or `load_own`, whole pages of it, before it is
        // run or after. Neither is ever written.
        Ok(unsafe { rustix::mm::mprotect(start.cast_mut().cast(), length, flags) }?)
    }
}

impl CustomCodeMemory for MappedCode {
    fn required_alignment(&self) -> usize {
        // SAFETY: asks for a number, and the C library has it.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page has a size")
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(start, length, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(start, length, MprotectFlags::READ)
    }
}

/// Closes every descriptor from this one on.
///
/// # Errors
///
/// The kernel's, below Linux 5.9.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called first in `main` of a helper, when nothing but the standard streams was opened; nobody holds one of
    // the descriptors that go away.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Descriptor 0, owned. Once.
pub(super) fn take_stdin() -> OwnedFd {
    // SAFETY: a helper's stdin is a socket that the host opened for it; Rust's `Stdin` never closes it, and no helper
    // calls this twice.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Leaves this process, and all it starts, without a network.
///
/// # Errors
///
/// The kernel's, without `CAP_SYS_ADMIN`.
pub(super) fn leave_network() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

/// Moves this process into new namespaces.
///
/// # Errors
///
/// The kernel's: without `CAP_SYS_ADMIN`, beyond a limit, or for a kind of namespace it was built without.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only a new table of descriptors would be unsafe, and that flag is taken out.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }?)
}

/// Goes on as two processes; both have the same parent. In the new one, the answer is none; in the old one, its number.
///
/// # Errors
///
/// The kernel's, when there are too many processes.
pub(super) fn split() -> io::Result<Option<i32>> {
    let flags = i64::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: a helper does this while it has one thread, so no lock is held and no other thread's state is lost; without
    // CLONE_VM the new process has a copy of everything, the stack included. The remaining arguments are for flags that
    // are not given; zero is right for them on every architecture.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_i64, 0_i64, 0_i64, 0_i64) };
    match pid {
        0 => Ok(None),
        1.. => Ok(Some(i32::try_from(pid).expect("the kernel's process numbers end at 2^22"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Any system call, as an intruder makes it: its answer, or the error as a negative number.
#[cfg(feature = "faults")]
pub(super) fn system_call(number: i64, arguments: [i64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: no caller hands out memory that is in use: arguments are numbers, addresses of constants that the call
    // reads, addresses that no call accepts, or memory that was mapped for it.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default()) } else { answer }
}

/// A constant's address, for [`system_call`].
#[cfg(feature = "faults")]
pub(super) fn address(text: &'static std::ffi::CStr) -> i64 {
    text.as_ptr().expose_provenance().cast_signed() as i64
}
