//! Seeded numbers for races and benchmarks: the same seed gives the same run.

/// SplitMix64: small, good enough to mix schedules.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Another seed in each run, unless `LAMINA_SEED` names one, as to see a failure again. Tests
    /// name it where they fail.
    ///
    /// # Panics
    /// If the variable is no number.
    pub fn seed_of_this_run() -> u64 {
        if let Ok(named) = std::env::var("LAMINA_SEED") {
            return named.parse().expect("LAMINA_SEED is a number");
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_micros() as u64)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    /// Puts `all` into any order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last as u64 + 1);
            all.swap(last, other as usize);
        }
    }
}
