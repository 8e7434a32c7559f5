//! Native code on its way into a runner: a descriptor that nobody can write through goes with the first message, and the
//! runner maps it. So runners of one plugin share its pages, only what is used of it is read, and nothing is copied.
//!
//! The descriptor is of the store's own file, or of sealed memory: for code that is kept nowhere, and where the store is
//! on a file system whose files must not be executed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Name of such memory in `/proc`.
const NAME: &std::ffi::CStr = c"native-code";

/// Native code of one component, for this engine and CPU.
#[derive(Debug)]
pub(super) struct NativeCode {
    file: OwnedFd,
    bytes: u64,
}

impl NativeCode {
    /// That of a file which was opened for reading, and which only this user writes, and never in place.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn in_file(mut file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        if !rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return Ok(Self { file: file.into(), bytes });
        }
        io::Seek::rewind(&mut file)?;
        Self::in_memory(file.take(bytes))
    }

    /// A copy that nobody can change.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn in_memory(mut code: impl Read) -> io::Result<Self> {
        let create = |flags| rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | flags);
        // Some sites refuse memory files that could be executed as programs; kernels below 6.3 know no others.
        let file = match create(MemfdFlags::NOEXEC_SEAL) {
            Err(rustix::io::Errno::INVAL) => create(MemfdFlags::ALLOW_SEALING),
            created => created,
        };
        let mut file = File::from(file?);
        let bytes = io::copy(&mut code, &mut file)?;
        file.flush()?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { file: file.into(), bytes })
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sends a copy of the descriptor with the beginning of a frame. Tells how much of the frame is sent.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) async fn send_with(&self, frame: &[u8], socket: &UnixStream) -> io::Result<usize> {
        socket
            .async_io(Interest::WRITABLE, || {
                let descriptors = [self.file.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                Ok(rustix::net::sendmsg(socket, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
    }
}

/// The runner's end of that: reads, and keeps the descriptor that comes along.
pub(super) struct Receiver<'a> {
    socket: &'a StdUnixStream,
    pub(super) descriptor: Option<OwnedFd>,
}

impl<'a> Receiver<'a> {
    /// Nothing is read ahead: what follows the message is left in the socket.
    pub(super) fn new(socket: &'a StdUnixStream) -> Self {
        Self { socket, descriptor: None }
    }
}

impl Read for Receiver<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = rustix::net::recvmsg(self.socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptor = descriptors.last().or(self.descriptor.take());
            }
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn content(descriptor: OwnedFd) -> Vec<u8> {
        let mut content = Vec::new();
        let mut file = File::from(descriptor);
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn code_in_memory_can_be_read_and_not_changed() {
        let code = NativeCode::in_memory(&b"code"[..]).unwrap();
        assert_eq!(code.bytes(), 4);
        let file = File::from(code.file);
        assert_eq!(file.write_at(b"x", 0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(file.set_len(0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(content(file.into()), b"code");
    }

    #[test]
    fn code_in_a_file_is_not_copied() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"code").unwrap();
        let code = NativeCode::in_file(File::open(file.path()).unwrap()).unwrap();
        let inode = |file: rustix::fs::Stat| (file.st_dev, file.st_ino);
        assert_eq!(inode(rustix::fs::fstat(&code.file).unwrap()), inode(rustix::fs::fstat(file.as_file()).unwrap()));
        let file = File::from(code.file);
        file.write_at(b"x", 0).expect_err("it is open for writing");
        assert_eq!(content(file.into()), b"code");
    }

    #[tokio::test]
    async fn the_descriptor_comes_with_its_message_and_what_follows_stays_unread() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let code = NativeCode::in_memory(&b"code"[..]).unwrap();
        assert_eq!(code.send_with(b"message", &ours).await.unwrap(), 7);
        ours.try_write(b"rest").unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let mut receiver = Receiver::new(&theirs);
        let mut message = [0; 7];
        receiver.read_exact(&mut message[..4]).unwrap();
        receiver.read_exact(&mut message[4..]).unwrap();
        assert_eq!(&message, b"message");
        assert_eq!(content(receiver.descriptor.unwrap()), b"code");
        let mut rest = [0; 4];
        (&theirs).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"rest");
    }
}
