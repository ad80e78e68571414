//! Chance for the generator: a seeded stream of numbers, and draws by weight.
//!
//! The algorithm is written out here because a seed is a promise: `--seed 7` must give the same log with every later
//! version. The crate `rand` keeps the streams of its named generators, but not what its sampling methods make of them,
//! and weights by `powf` would differ between math libraries. A few lines of integer arithmetic have neither problem.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): 64 bits of state,
/// passes BigCrush, two multiplications per number. Plenty for logs, of no use for secrets.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `limit - 1`; 0 when the limit is 0. Scaled rather than divided: the bias is below 2^-32 times
    /// the limit, far less than a log can show.
    pub fn below(&mut self, limit: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille
    }

    /// Any of `items`, which are not empty, with equal chance.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }
}

/// Draws an index with a chance in proportion to its weight, in the same time however many there are: Walker's alias
/// method, with the tables of Vose (A Linear Algorithm for Generating Random Numbers with a Given Distribution, 1991).
/// The weights are cut and rearranged into columns of equal height, so that each column holds parts of at most two; a
/// draw chooses a column, then one of the two. In integers, nothing is lost to rounding.
pub struct Weights {
    /// Never empty.
    columns: Vec<Column>,
    /// The height of each column: the sum of the weights, when these are scaled by their number.
    height: u32,
}

/// Below `own` belongs to the index of the column, above it to `other`.
#[derive(Clone, Copy)]
struct Column {
    own: u32,
    other: u32,
}

impl Weights {
    /// Weights as given. An index of weight 0 is never drawn; at least one weight must be above 0.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Weights {
        let weights: Vec<u32> = weights.into_iter().collect();
        let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let height = u32::try_from(sum).expect("the generator's own tables have small sums");
        assert!(height > 0, "the generator's own tables are not empty");

        // What of each scaled weight is still to be placed.
        let mut left: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
        let (mut low, mut high): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|&index| left[index] < sum);
        let mut columns = vec![Column { own: height, other: 0 }; left.len()];
        while let (Some(index), Some(&giver)) = (low.pop(), high.last()) {
            columns[index] = Column { own: left[index] as u32, other: giver as u32 };
            left[giver] -= sum - left[index];
            if left[giver] < sum {
                high.pop();
                low.push(giver);
            }
        }
        Weights { columns, height }
    }

    /// Zipf-Mandelbrot over `count` ranks: rank r (from 1) weighs 1 / (r + flatness). Words, pages and visitors are
    /// spread about like this; a larger flatness takes weight off the first few.
    pub fn zipf(count: u32, flatness: u32) -> Weights {
        // Large enough that the last of some ten thousand ranks still differ, small enough that their sum fits 32 bits.
        const FIRST: u32 = 200_000_000;
        Weights::new((1..=count).map(|rank| FIRST / (rank + flatness)))
    }

    pub fn draw(&self, random: &mut Random) -> usize {
        let index = random.below(self.columns.len() as u32) as usize;
        let column = self.columns[index];
        if random.below(self.height) < column.own { index } else { column.other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_published_algorithm() {
        // The reference implementation's first numbers from state 1234567.
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.bits(), random.bits(), random.bits()], expected);
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut random = Random::new(1);
        let weights = Weights::new([10, 0, 25, 5, 60]);
        let mut drawn = [0i32; 5];
        for _ in 0..100_000 {
            drawn[weights.draw(&mut random)] += 1;
        }
        for (drawn, expected) in drawn.into_iter().zip([10_000, 0, 25_000, 5_000, 60_000]) {
            assert!((drawn - expected).abs() <= expected / 20, "{drawn} for {expected}");
        }
    }

    #[test]
    fn the_largest_crowd_fits_the_sums() {
        let weights = Weights::zipf(50_000, 0); // panics if the first weight is too large
        let mut random = Random::new(2);
        assert!((0..1000).all(|_| weights.draw(&mut random) < 50_000));
    }
}
