//! The generator's own randomness: SplitMix64, which is no cryptography and must stay the same for ever.

/// A stream of numbers that follows from a seed, labels and a number.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, labels: &[&str], number: u64) -> Self {
        let mut state = Self(seed ^ 0x5761_7962_696c_6c21);
        for byte in labels.iter().flat_map(|label| label.bytes().chain([0xff])) {
            state.0 = state.next() ^ u64::from(byte);
        }
        state.0 = state.next() ^ number;
        state
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound; the tiny bias does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).expect("the index of a list fits")]
    }
}

/// An id in the form of a random UUID.
pub(super) fn uuid(seed: u64, labels: &[&str], number: u64) -> String {
    let mut random = Random::new(seed, labels, number);
    let (high, low) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}
