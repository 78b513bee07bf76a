//! Which keys are certainly not in a file of an archive.
//!
//! Every new order's key is looked for among all that were ever used. To look into the index of each file for that would take
//! some microseconds a file. So each file has a Bloom filter beside it, cut into blocks (Putze, Sanders and Singler,
//! "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): a key has all its bits in one block of 64 bytes, which is read from the
//! file whenever it is asked. The machine keeps in its page cache what it has room for, and this process keeps nothing.
//!
//! A filter spares work, and nothing rests on it: where it is missing, or a block is not as it was written, the key may be there.
//! One that is missing is made anew when the database is opened for writing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use daemon::atomic_file;
use domain::IdempotencyKey;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::part::Part;
use crate::location::Location;

const BLOCK_BYTES: usize = 64;

/// At the end of each block: what vouches for it.
const CHECKSUM_BYTES: usize = 4;

const BITS: u64 = 8 * (BLOCK_BYTES - CHECKSUM_BYTES) as u64;

/// Of one key. With 32 keys in a block, 1 in 400 other keys has all its bits in it by chance.
const BITS_OF_KEY: usize = 8;

const KEYS_OF_BLOCK: u64 = 32;

/// Room that is asked for while a filter is made, in blocks. More than 32 MiB glibc gives back to the system as soon as it is
/// freed, and what is less it may keep for ever (mallopt(3), `M_MMAP_THRESHOLD`): of each merge of three million rows 6 MiB. What
/// is not written to takes no memory.
const ROOM_BLOCKS: usize = (32 << 20) / BLOCK_BYTES + 1;

/// The first block.
const HEAD: &[u8; 16] = b"bazaar keys v1\0\0";

type Block = [u8; BLOCK_BYTES];

/// A key that is looked for.
pub(crate) struct Wanted([u8; 32]);

impl Wanted {
    pub(crate) fn new(key: &IdempotencyKey) -> Self {
        Self::of(key.as_str())
    }

    fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// In which of so many blocks its bits are.
    fn block(&self, blocks: u64) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("it has 32 bytes")) % blocks
    }

    /// Places in the block.
    fn bits(&self) -> impl Iterator<Item = (usize, u8)> {
        self.0[8..].chunks_exact(2).take(BITS_OF_KEY).map(|two| {
            let bit = u64::from(u16::from_be_bytes([two[0], two[1]])) % BITS;
            ((bit / 8) as usize, 1 << (bit % 8))
        })
    }
}

/// The filter of one file.
#[derive(Debug)]
pub(crate) struct Keys {
    part: Part,
    file: Asked,
}

#[derive(Debug)]
enum Asked {
    NotYet,
    Opened(File),
    /// It is missing, or is not one.
    Useless,
}

impl Asked {
    fn opened(path: &Path, part: Part) -> Self {
        match open(path, part) {
            Ok(file) => Self::Opened(file),
            // That passes.
            Err(error) if [Errno::MFILE, Errno::NFILE].contains(&errno(&error)) => Self::NotYet,
            Err(error) => {
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "a filter of keys is missing or damaged: orders take longer until the next start, which makes it anew"
                );
                Self::Useless
            }
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

impl Keys {
    /// Not opened yet.
    pub(crate) fn none(part: Part) -> Self {
        Self {
            part,
            file: Asked::NotYet,
        }
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    pub(crate) fn may_have(&mut self, location: &Location, wanted: &Wanted) -> bool {
        let part = self.part;
        if matches!(self.file, Asked::NotYet) {
            self.file = Asked::opened(&part.keys_path(location), part);
        }
        let Asked::Opened(file) = &self.file else {
            return true;
        };
        let number = wanted.block(blocks_of(part));
        let mut block = [0; BLOCK_BYTES];
        let read = file.read_exact_at(&mut block, (number + 1) * BLOCK_BYTES as u64);
        let is_whole =
            read.is_ok() && block[BLOCK_BYTES - CHECKSUM_BYTES..] == checksum(part, number, &block);
        !is_whole || wanted.bits().all(|(byte, bit)| block[byte] & bit != 0)
    }
}

fn blocks_of(part: Part) -> u64 {
    part.rows().div_ceil(KEYS_OF_BLOCK)
}

fn open(path: &Path, part: Part) -> io::Result<File> {
    let file = File::open(path)?;
    let mut head = [0; HEAD.len()];
    file.read_exact_at(&mut head, 0)?;
    let bytes = (blocks_of(part) + 1) * BLOCK_BYTES as u64;
    match head == *HEAD && file.metadata()?.len() == bytes {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not what was archived",
        )),
    }
}

/// Whether the filter of a file is missing, or is not one: of what the disk refuses nobody knows.
pub(crate) fn is_missing(location: &Location, part: Part) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let opened = open(&part.keys_path(location), part);
    opened.is_err_and(|error| [NotFound, InvalidData, UnexpectedEof].contains(&error.kind()))
}

/// FNV-1a over what is before it, and where: any one byte that is another gives another.
fn checksum(part: Part, number: u64, block: &Block) -> [u8; CHECKSUM_BYTES] {
    let place = [part.first.0, part.end.rows.0, number].map(u64::to_be_bytes);
    let bytes = place.as_flattened().iter();
    let bytes = bytes.chain(&block[..BLOCK_BYTES - CHECKSUM_BYTES]);
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.fold(0x811c_9dc5, fold).to_be_bytes()
}

/// A filter that is being made.
pub(crate) struct New {
    part: Part,
    /// The head, then those with bits.
    blocks: Vec<Block>,
}

impl New {
    pub(crate) fn of(part: Part) -> Self {
        let blocks = 1 + usize::try_from(blocks_of(part)).expect("a file has few rows");
        let mut room = vec![[0; BLOCK_BYTES]; blocks.max(ROOM_BLOCKS)];
        room.truncate(blocks);
        Self { part, blocks: room }
    }

    pub(crate) fn add(&mut self, key: &str) {
        let wanted = Wanted::of(key);
        let block = &mut self.blocks[1 + wanted.block(blocks_of(self.part)) as usize];
        for (byte, bit) in wanted.bits() {
            block[byte] |= bit;
        }
    }

    /// Writes and syncs it.
    pub(crate) fn write(mut self, path: &Path) -> io::Result<()> {
        self.seal();
        fs::write(path, self.blocks.as_flattened())?;
        File::open(path)?.sync_all()
    }

    /// The same, in the place of one that others may have open, or have under another name: theirs stays as it is.
    pub(crate) fn replace(mut self, path: &Path) -> io::Result<()> {
        self.seal();
        atomic_file::write(path, self.blocks.as_flattened())
    }

    /// Adds the head, and to each block what vouches for it.
    fn seal(&mut self) {
        self.blocks[0][..HEAD.len()].copy_from_slice(HEAD);
        for (block, number) in self.blocks[1..].iter_mut().zip(0..) {
            let checksum = checksum(self.part, number, block);
            block[BLOCK_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{LedgerEnd, RowNumber};

    use super::*;

    const ROWS: u64 = 20_000;

    fn key(number: u64) -> String {
        format!("key-{number}")
    }

    /// A filter of `ROWS` keys in a directory.
    fn made(dir: &Path) -> (Location, Part) {
        let end = LedgerEnd {
            rows: RowNumber(100 + ROWS),
            ..LedgerEnd::default()
        };
        let part = Part {
            first: RowNumber(100),
            end,
        };
        let location = Location::on_disk(dir);
        let mut new = New::of(part);
        (0..ROWS).for_each(|number| new.add(&key(number)));
        fs::create_dir(location.beside(super::super::DIR)).unwrap();
        new.write(&part.keys_path(&location)).unwrap();
        (location, part)
    }

    #[test]
    fn no_key_that_is_there_is_said_not_to_be_and_few_others_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let (location, part) = made(dir.path());
        let mut keys = Keys::none(part);
        let mut may_have = |number| keys.may_have(&location, &Wanted::of(&key(number)));
        assert!((0..ROWS).all(&mut may_have));
        let others = (ROWS..2 * ROWS).filter(|number| may_have(*number)).count();
        assert!(others < ROWS as usize / 100, "{others}");
    }

    #[test]
    fn a_filter_that_is_damaged_says_of_no_key_that_it_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (location, part) = made(dir.path());
        let path = part.keys_path(&location);
        let whole = fs::read(&path).unwrap();
        let changed = |place: usize| {
            let mut bytes = whole.clone();
            bytes[place] = 0;
            bytes
        };
        let mut damaged: Vec<Vec<u8>> = (0..5_000).step_by(3).map(changed).collect();
        damaged.extend([Vec::new(), whole[..whole.len() - 64].to_vec()]);
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            let mut keys = Keys::none(part);
            let all = (0..ROWS).step_by(97);
            for number in all {
                let wanted = Wanted::of(&key(number));
                assert!(keys.may_have(&location, &wanted));
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(Keys::none(part).may_have(&location, &Wanted::of(&key(ROWS))));
    }
}
