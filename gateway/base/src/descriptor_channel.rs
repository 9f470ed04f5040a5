//! Messages between two processes of one user over a Unix stream socket, with open descriptors
//! beside the bytes (SCM_RIGHTS).
//!
//! A message is its length (four bytes) and so many bytes; its descriptors come with the length.
//! Everything is bounded: bytes, descriptors, and how long one waits for either. All calls block.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use rustix::process::getuid;

/// The most bytes of a message.
pub const MOST_BYTES: usize = 256 << 10;

/// The most descriptors of a message: the kernel takes 253.
pub const MOST_DESCRIPTORS: usize = 128;

/// One end of the way.
#[derive(Debug)]
pub struct DescriptorChannel {
    stream: UnixStream,
}

/// The process at the other end of a channel, as the kernel knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelPeer {
    pub process: u32,
    pub user: u32,
}

/// Whether the other end has said something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelState {
    /// Something is there, perhaps not all of it.
    Message,
    Silent,
    Ended,
}

/// A message with its descriptors.
#[derive(Debug)]
pub struct ReceivedMessage {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// The user of this process.
pub fn own_user() -> u32 {
    getuid().as_raw()
}

impl DescriptorChannel {
    /// Connects to the socket at this path.
    ///
    /// # Errors
    /// If nobody listens there, or this user may not connect.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// Uses a stream that is connected.
    ///
    /// # Errors
    /// If the stream can't be made to block.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { stream })
    }

    /// Uses an end of a way that another process has handed over.
    ///
    /// # Errors
    /// If the stream can't be made to block.
    pub fn handed_over(descriptor: OwnedFd) -> io::Result<Self> {
        Self::over(UnixStream::from(descriptor))
    }

    /// Another end of the same way.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let stream = self.stream.try_clone()?;
        Ok(Self { stream })
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn peer(&self) -> io::Result<ChannelPeer> {
        let known = socket_peercred(&self.stream)?;
        Ok(ChannelPeer {
            process: u32::try_from(known.pid.as_raw_pid()).unwrap_or_default(),
            user: known.uid.as_raw(),
        })
    }

    /// Ends the way in both directions: whoever waits for a message is woken.
    pub fn close(&self) {
        // It fails where the other end is gone, which is the same.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Sends a message with these descriptors, which stay open here.
    ///
    /// # Errors
    /// If it is too large, or the other end takes nothing for `patience`.
    pub fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> io::Result<()> {
        if bytes.len() > MOST_BYTES || descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the message is too large",
            ));
        }
        self.stream.set_write_timeout(Some(patience.max(LEAST)))?;
        let length = (bytes.len() as u32).to_be_bytes();
        let rights = SendAncillaryMessage::ScmRights(descriptors);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(&length)];
        let sent = retry(|| sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL))?;
        (&self.stream).write_all(&length[sent..])?;
        (&self.stream).write_all(bytes)
    }

    /// Waits until there is something to receive, of which nothing is taken.
    pub fn await_message(&self, patience: Duration) -> ChannelState {
        let mut first = [0];
        let looked = self
            .stream
            .set_read_timeout(Some(patience.max(LEAST)))
            .and_then(|()| retry(|| recv(&self.stream, &mut first, RecvFlags::PEEK)));
        match looked {
            Ok((_, 0)) => ChannelState::Ended,
            Ok(_) => ChannelState::Message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ChannelState::Silent,
            Err(_) => ChannelState::Ended,
        }
    }

    /// Waits for a message. None: the other end has closed.
    ///
    /// # Errors
    /// If nothing comes for `patience`, or what comes is no message.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<ReceivedMessage>> {
        self.stream.set_read_timeout(Some(patience.max(LEAST)))?;
        let (mut length, mut descriptors, mut have) = ([0; 4], Vec::new(), 0);
        while have < length.len() {
            match self.receive_some(&mut length[have..], &mut descriptors)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => have += some,
            }
        }
        let size = u32::from_be_bytes(length) as usize;
        if size > MOST_BYTES {
            return Err(invalid("it is longer than a message may be"));
        }
        let mut bytes = vec![0; size];
        (&self.stream).read_exact(&mut bytes)?;
        Ok(Some(ReceivedMessage { bytes, descriptors }))
    }

    fn receive_some(&self, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(into)];
        let received = retry(|| {
            recvmsg(
                &self.stream,
                &mut parts,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.flags.contains(rustix::net::ReturnFlags::CTRUNC)
            || descriptors.len() > MOST_DESCRIPTORS
        {
            return Err(invalid("it has more descriptors than a message may have"));
        }
        Ok(received.bytes)
    }
}

impl AsFd for DescriptorChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A limit of zero would mean none.
const LEAST: Duration = Duration::from_millis(1);

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (DescriptorChannel, DescriptorChannel) {
        let (one, two) = UnixStream::pair().unwrap();
        let over = |stream| DescriptorChannel::over(stream).unwrap();
        (over(one), over(two))
    }

    #[test]
    fn a_message_brings_its_bytes_and_descriptors_and_the_next_one_its_own() {
        let (one, two) = pair();
        let files: Vec<File> = (0..MOST_DESCRIPTORS)
            .map(|n| {
                let mut file = tempfile::tempfile().unwrap();
                write!(file, "file {n}").unwrap();
                file
            })
            .collect();
        let all: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        one.send(b"first", &all, SOON).unwrap();
        one.send(b"", &[], SOON).unwrap();
        one.send(b"third", &all[..1], SOON).unwrap();
        drop(one);
        let first = two.receive(SOON).unwrap().unwrap();
        assert_eq!(first.bytes, b"first");
        assert_eq!(first.descriptors.len(), MOST_DESCRIPTORS);
        for (n, descriptor) in first.descriptors.into_iter().enumerate() {
            let (mut file, mut text) = (File::from(descriptor), String::new());
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("file {n}"));
        }
        let second = two.receive(SOON).unwrap().unwrap();
        assert!(second.bytes.is_empty() && second.descriptors.is_empty());
        let third = two.receive(SOON).unwrap().unwrap();
        assert_eq!((&*third.bytes, third.descriptors.len()), (&b"third"[..], 1));
        assert!(two.receive(SOON).unwrap().is_none(), "the end");
    }

    #[test]
    fn what_is_too_large_or_breaks_off_or_never_comes_is_an_error() {
        let (one, two) = pair();
        assert!(one.send(&vec![0; MOST_BYTES + 1], &[], SOON).is_err());
        let kind = |channel: &DescriptorChannel| channel.receive(LEAST).unwrap_err().kind();
        assert_eq!(kind(&two), io::ErrorKind::WouldBlock);
        (&one.stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(kind(&two), io::ErrorKind::InvalidData);
        let (one, two) = pair();
        (&one.stream).write_all(&[0, 0, 0, 9, b'x']).unwrap();
        drop(one);
        assert_eq!(kind(&two), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn it_is_seen_whether_a_message_is_there_and_the_end_may_be_handed_on() {
        let (one, two) = pair();
        assert_eq!(two.await_message(LEAST), ChannelState::Silent);
        one.send(b"first", &[], SOON).unwrap();
        assert_eq!(two.await_message(SOON), ChannelState::Message);
        let handed = DescriptorChannel::handed_over(two.as_fd().try_clone_to_owned().unwrap());
        let handed = handed.unwrap();
        drop(two);
        assert_eq!(handed.receive(SOON).unwrap().unwrap().bytes, b"first");
        drop(one);
        assert_eq!(handed.await_message(SOON), ChannelState::Ended);
    }

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (one, _two) = pair();
        let peer = one.peer().unwrap();
        assert_eq!(peer.process, std::process::id());
        assert_eq!(peer.user, own_user());
    }
}
