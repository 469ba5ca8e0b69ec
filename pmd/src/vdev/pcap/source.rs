//! Frames out of a capture file, pcap or pcapng.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek};

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Bytes that are read at a time; no record is larger.
const BUFFER: usize = 256 * 1024;

/// What comes next in a capture.
pub(crate) enum Next<T> {
    /// An Ethernet frame: its length and what the caller made of it.
    Frame(usize, T),
    /// A packet of another link type.
    Foreign,
    /// Nothing: the file is at its end, or broken from here on.
    End,
}

/// A capture file, at some place.
pub(crate) struct Source {
    file: File,
    reader: Box<dyn PcapReaderIterator + Send>,
    repeat: bool,
    /// Whether this pass over the file has found a packet: a file without any is not repeated.
    found: bool,
    /// Whether interface n of the section is Ethernet.
    ethernet: Vec<bool>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("file", &self.file)
            .field("repeat", &self.repeat)
            .finish_non_exhaustive()
    }
}

/// What one block of the file is.
enum Item<T> {
    Frame(usize, T),
    Foreign,
    Other,
}

/// One step through the file.
enum Step<T> {
    Block(Item<T>),
    NeedsMore,
    AtEnd,
    Broken,
}

impl Source {
    /// Reads the file's head.
    pub(crate) fn new(file: File, repeat: bool) -> io::Result<Self> {
        let reader = reader(&file)?;
        Ok(Self { file, reader, repeat, found: false, ethernet: Vec::new() })
    }

    /// Calls `take` with the next frame.
    pub(crate) fn next<T>(&mut self, mut take: impl FnMut(&[u8]) -> (usize, T)) -> Next<T> {
        loop {
            let go_on = match self.step(&mut take) {
                Step::Block(Item::Other) => true,
                Step::Block(Item::Frame(len, made)) => return Next::Frame(len, made),
                Step::Block(Item::Foreign) => return Next::Foreign,
                Step::NeedsMore => self.reader.refill().is_ok(),
                Step::AtEnd => self.repeat && self.found && self.rewind().is_ok(),
                Step::Broken => false,
            };
            if !go_on {
                return Next::End;
            }
        }
    }

    /// Takes one block out of what is read.
    fn step<T>(&mut self, take: &mut impl FnMut(&[u8]) -> (usize, T)) -> Step<T> {
        let (offset, item) = match self.reader.next() {
            Ok((offset, block)) => (offset, item(&block, &mut self.ethernet, take)),
            Err(PcapError::Incomplete(_)) => return Step::NeedsMore,
            Err(PcapError::Eof) => return Step::AtEnd,
            Err(_) => return Step::Broken,
        };
        self.reader.consume(offset);
        self.found |= !matches!(item, Item::Other);
        Step::Block(item)
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.reader = reader(&self.file)?;
        self.found = false;
        Ok(())
    }
}

/// A reader from the file's place on. It shares the place with `file`.
fn reader(file: &File) -> io::Result<Box<dyn PcapReaderIterator + Send>> {
    create_reader(BUFFER, file.try_clone()?).map_err(|e| match e {
        PcapError::Eof => io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"),
        _ => io::Error::new(io::ErrorKind::InvalidData, "the file is neither pcap nor pcapng"),
    })
}

fn item<T>(
    block: &PcapBlockOwned<'_>,
    ethernet: &mut Vec<bool>,
    take: &mut impl FnMut(&[u8]) -> (usize, T),
) -> Item<T> {
    let (interface, frame) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *ethernet = vec![header.network == Linktype::ETHERNET];
            return Item::Other;
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            ethernet.clear();
            return Item::Other;
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            ethernet.push(interface.linktype == Linktype::ETHERNET);
            return Item::Other;
        }
        PcapBlockOwned::Legacy(packet) => (0, packet.data),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => (packet.if_id as usize, packet.packet_data()),
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => (0, packet.packet_data()),
        PcapBlockOwned::NG(_) => return Item::Other,
    };
    if !ethernet.get(interface).is_some_and(|e| *e) {
        return Item::Foreign;
    }
    let (len, made) = take(frame);
    Item::Frame(len, made)
}
