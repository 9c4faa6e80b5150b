//! How one text becomes another.

use crate::targets::Target;

/// Makes new texts of known ones.
pub struct Mutator {
    state: u64,
    words: Vec<&'static [u8]>,
}

impl Mutator {
    pub fn new(target: &Target) -> Self {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |elapsed| elapsed.as_nanos() as u64);
        Self {
            state: seed | 1,
            words: target.words.iter().map(|word| word.as_bytes()).collect(),
        }
    }

    // xorshift64*: good enough to pick places with.
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        number as usize % limit.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 {
            length - start
        } else {
            (length - start).min(8)
        };
        start..start + self.below(longest + 1)
    }

    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let place = self.below(corpus.len());
        let mut text = corpus.get(place).cloned().unwrap_or_default();
        for _ in 0..1 + self.below(5) {
            self.step(&mut text, corpus);
        }
        text
    }

    fn step(&mut self, text: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(text.len() + 1);
        match self.below(10) {
            0 => {
                let range = self.range(text.len());
                text.drain(range);
            }
            1 => {
                let range = self.range(text.len());
                let copy = text[range].to_vec();
                for _ in 0..1 + self.below(3) {
                    text.splice(at..at, copy.iter().copied());
                }
            }
            2 if !text.is_empty() => {
                let place = self.below(text.len());
                text[place] = self.below(256) as u8;
            }
            3 if !text.is_empty() => {
                let place = self.below(text.len());
                text[place] ^= 1 << self.below(8);
            }
            4 => {
                let place = self.below(corpus.len());
                let other = corpus.get(place).map(Vec::as_slice).unwrap_or_default();
                let range = self.range(other.len());
                text.splice(at..at, other[range].iter().copied());
            }
            5 => {
                let place = self.below(corpus.len());
                let other = corpus.get(place).map(Vec::as_slice).unwrap_or_default();
                let from = self.below(other.len() + 1);
                text.truncate(at);
                text.extend_from_slice(&other[from..]);
            }
            6 => {
                let numbers: [&[u8]; 8] = [
                    b"0",
                    b"-1",
                    b"65536",
                    b"4294967296",
                    b"9223372036854775807",
                    b"18446744073709551616",
                    b"1e400",
                    b"0x",
                ];
                let number = numbers[self.below(numbers.len())];
                text.splice(at..at, number.iter().copied());
            }
            _ if !self.words.is_empty() => {
                let place = self.below(self.words.len());
                let word = self.words[place];
                text.splice(at..at, word.iter().copied());
            }
            _ => {}
        }
    }
}
