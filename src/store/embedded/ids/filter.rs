//! A filter that says of most hashes that are not in a run that they are not.
//!
//! A split block Bloom filter, as Apache Parquet defines it: one block of 256 bits a hash, one bit in each of its eight
//! words. With twelve bits an entry about one answer in two hundred is wrong, and then a block of the run is read in vain.

/// The factors of the eight words (Parquet's format, `BloomFilter.md`).
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];
const BITS_PER_ENTRY: usize = 12;
const BLOCK_BITS: usize = 256;

#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    pub(super) fn new(entries: usize) -> Self {
        Self { blocks: vec![[0; 8]; (entries * BITS_PER_ENTRY).div_ceil(BLOCK_BITS).max(1)] }
    }

    pub(super) fn add(&mut self, hash: u64) {
        let at = self.at(hash);
        if let Some(block) = self.blocks.get_mut(at) {
            for (word, salt) in block.iter_mut().zip(SALTS) {
                *word |= bit(hash, salt);
            }
        }
    }

    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let block = self.blocks.get(self.at(hash));
        block.is_some_and(|block| block.iter().zip(SALTS).all(|(word, salt)| word & bit(hash, salt) != 0))
    }

    /// The block: the upper half of the hash, spread over all of them.
    fn at(&self, hash: u64) -> usize {
        usize::try_from(((hash >> 32) * self.blocks.len() as u64) >> 32).unwrap_or_default()
    }
}

/// One of 32 bits, from the lower half of the hash.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn bit(hash: u64, salt: u32) -> u32 {
    1 << ((hash as u32).wrapping_mul(salt) >> 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_misses_nothing_and_errs_seldom() {
        let hash = |number: u64| {
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let mut filter = Filter::new(100_000);
        (0..100_000).for_each(|number| filter.add(hash(number)));
        assert!((0..100_000).all(|number| filter.may_hold(hash(number))));
        let wrong = (100_000..200_000).filter(|number| filter.may_hold(hash(*number))).count();
        assert!((1..1_000).contains(&wrong), "{wrong} of 100000");
    }
}
