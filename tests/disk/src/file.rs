//! One file: what processes see of it, and what a loss of power leaves.

use fastrand::Rng;

/// What a disk writes as a whole, or else tears.
const SECTOR_BYTES: usize = 512;

/// How a loss of power treats what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    Everything,
    /// Each sector of each write is kept, lost or torn; lengths and names are kept or lost.
    Some,
    /// All of it is there.
    Nothing,
}

#[derive(Debug, Clone, Default)]
pub struct File {
    /// What processes see: the page cache.
    seen: Vec<u8>,
    /// What is certainly on the disk; `None` where not even its name is.
    durable: Option<Vec<u8>>,
    /// What happened to it since, in order.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Written { offset: usize, bytes: Vec<u8> },
    Resized(usize),
}

impl File {
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// What is certainly on the disk.
    pub fn durable(&self) -> Option<&[u8]> {
        self.durable.as_deref()
    }

    /// Whether there is anything to sync.
    pub fn is_dirty(&self) -> bool {
        self.durable.is_none() || !self.unsynced.is_empty()
    }

    /// Another file with what processes see, all of it durable.
    pub fn copied(&self) -> Self {
        Self {
            seen: self.seen.clone(),
            durable: Some(self.seen.clone()),
            unsynced: Vec::new(),
        }
    }

    /// The disk damages a byte by itself.
    pub fn flip(&mut self, place: usize, bits: u8) {
        self.seen[place] ^= bits;
        if let Some(byte) = self.durable.as_mut().and_then(|it| it.get_mut(place)) {
            *byte ^= bits;
        }
    }

    /// Puts bytes there; the file grows where it has to.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        write(&mut self.seen, offset, bytes);
        self.unsynced.push(Change::Written {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    /// Gives it another length.
    pub fn resize(&mut self, bytes: usize) {
        self.seen.resize(bytes, 0);
        self.unsynced.push(Change::Resized(bytes));
    }

    /// Everything seen is durable from now on.
    pub fn sync(&mut self) {
        let mut durable = self.durable.take().unwrap_or_default();
        for change in self.unsynced.drain(..) {
            match change {
                Change::Written { offset, bytes } => write(&mut durable, offset, &bytes),
                Change::Resized(bytes) => durable.resize(bytes, 0),
            }
        }
        self.durable = Some(durable);
    }

    /// Writes it anew, as it is seen.
    pub fn rewrite(&mut self) {
        self.write(0, &self.seen.clone());
    }

    /// A sync that fails, as it does on Linux: some of it reached the disk, and the rest is
    /// taken for clean. It is still seen, and no later sync makes it durable (Rebello et al.,
    /// "Can Applications Recover from fsync Failures?", ATC 2020).
    pub fn fail_sync(&mut self, random: &mut Rng) {
        self.settle(random, Loss::Some);
    }

    /// The power is lost. Whether the file is there afterwards.
    pub fn lose_power(&mut self, random: &mut Rng, loss: Loss) -> bool {
        self.settle(random, loss);
        self.seen = self.durable.clone().unwrap_or_default();
        self.durable.is_some()
    }

    /// Of what was not synced, what the loss leaves is durable, and the rest never will be.
    fn settle(&mut self, random: &mut Rng, loss: Loss) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let keeps = |random: &mut Rng| match loss {
            Loss::Everything => false,
            Loss::Some => random.bool(),
            Loss::Nothing => true,
        };
        if self.durable.is_none() && keeps(random) {
            self.durable = Some(Vec::new());
        }
        let Some(durable) = &mut self.durable else {
            return;
        };
        for change in unsynced {
            match change {
                Change::Resized(bytes) if keeps(random) => durable.resize(bytes, 0),
                Change::Resized(_) => {}
                Change::Written { offset, bytes } => {
                    for (offset, sector) in sectors(offset, &bytes) {
                        let kept = match loss {
                            // Only the beginning of it, once in a while.
                            Loss::Some if random.u8(..8) == 0 => random.usize(..sector.len()),
                            _ if keeps(random) => sector.len(),
                            _ => 0,
                        };
                        if kept > 0 {
                            write(durable, offset, &sector[..kept]);
                        }
                    }
                }
            }
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// A write's bytes, sector by sector.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let heads = (!head.is_empty()).then_some((offset, head));
    let rests = rest.chunks(SECTOR_BYTES).enumerate();
    heads
        .into_iter()
        .chain(rests.map(move |(index, chunk)| (offset + first + index * SECTOR_BYTES, chunk)))
}
