//! Tars whose entries have headers larger than memory are refused.
//!
//! Long names and extended attributes stand before an entry, are as long as the tar says, and are read into memory. A few megabytes
//! of a compressed layer can hold gigabytes of them.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// All that may stand between the data of one entry and that of the next. Names have a few kilobytes, attributes 64 each.
const HEADERS: u64 = 4 * 1024 * 1024;

/// A tar that is read no further than [`Bound`] lets it.
pub(crate) struct Bounded<R> {
    from: R,
    position: u64,
    end: Rc<Cell<u64>>,
}

/// Says how far a tar may be read; to be asked around every step from one entry to the next.
pub(crate) struct Bound {
    end: Rc<Cell<u64>>,
    /// Where the data of the last entry ends.
    last: u64,
}

impl<R> Bounded<R> {
    pub(crate) fn new(from: R) -> (Self, Bound) {
        let end = Rc::new(Cell::new(HEADERS));
        let bounded = Self {
            from,
            position: 0,
            end: Rc::clone(&end),
        };
        (bounded, Bound { end, last: 0 })
    }

    pub(crate) fn into_inner(self) -> R {
        self.from
    }
}

impl Bound {
    /// Goes to the next entry.
    pub(crate) fn next<'a, R: Read>(
        &mut self,
        entries: &mut tar::Entries<'a, R>,
    ) -> io::Result<Option<tar::Entry<'a, R>>> {
        self.end.set(self.last.saturating_add(HEADERS));
        let Some(entry) = entries.next().transpose()? else {
            // What follows the end belongs to the digest, and is not kept.
            self.end.set(u64::MAX);
            return Ok(None);
        };
        // A sparse entry is larger than what the tar has of it.
        let size = if entry.header().entry_type().is_gnu_sparse() {
            entry.header().entry_size()?
        } else {
            entry.size()
        };
        self.last = entry.raw_file_position().saturating_add(size);
        self.end.set(u64::MAX);
        Ok(Some(entry))
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.get().saturating_sub(self.position);
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "what is said of an entry has more than {HEADERS} bytes"
            )));
        }
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..length])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.from.seek(to)?;
        Ok(self.position)
    }
}
