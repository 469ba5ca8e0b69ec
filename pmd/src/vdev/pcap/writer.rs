//! A capture file in classic pcap with nanoseconds.

use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use mbuf::Mbuf;

use crate::vdev::frame::MAX_FRAME;

/// Nanosecond pcap, in the writer's byte order.
const MAGIC: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP_LEN: u32 = 262_144;
const BUFFER: usize = 256 * 1024;

const _: () = assert!(MAX_FRAME <= SNAP_LEN as usize);

/// Writes packets as a capture. What is buffered goes out with [`flush`](Self::flush) or when it is dropped.
#[derive(Debug)]
pub struct CaptureWriter<W: Write> {
    out: BufWriter<W>,
    /// A packet's bytes in one piece, whose allocation is kept.
    whole: Vec<u8>,
    /// After an error the file may end within a record: nothing may follow.
    broken: bool,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the file's header (24 bytes).
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(BUFFER, out);
        out.write_all(&MAGIC.to_ne_bytes())?;
        out.write_all(&2u16.to_ne_bytes())?;
        out.write_all(&4u16.to_ne_bytes())?;
        for word in [0, 0, SNAP_LEN, LINKTYPE_ETHERNET] {
            out.write_all(&word.to_ne_bytes())?;
        }
        out.flush()?;
        Ok(Self { out, whole: Vec::with_capacity(MAX_FRAME), broken: false })
    }

    /// Adds a packet as it is, with the time it is to be seen at (until the year 2106). Bytes behind the 262,144th are
    /// left out.
    ///
    /// # Errors
    /// What the file said, now or at an earlier packet.
    pub fn write_packet(&mut self, at: SystemTime, packet: &Mbuf<'_>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.whole.resize(packet.len().min(SNAP_LEN as usize), 0);
        packet.copy_to(0, &mut self.whole);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let header =
            [since.as_secs() as u32, since.subsec_nanos(), self.whole.len() as u32, packet.len() as u32];
        let mut bytes = [0; 16];
        for (field, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(header) {
            *field = word.to_ne_bytes();
        }
        let written = self.out.write_all(&bytes).and_then(|()| self.out.write_all(&self.whole));
        self.broken = written.is_err();
        written
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// What the file says.
    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.broken |= flushed.is_err();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_header_is_the_format_s() {
        let mut bytes = Vec::new();
        drop(CaptureWriter::new(&mut bytes).unwrap());
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..4], MAGIC.to_ne_bytes());
        assert_eq!(bytes[20..], 1u32.to_ne_bytes());
        assert!(CaptureWriter::new(Full).is_err(), "an unwritable file is told at once");
    }
}
