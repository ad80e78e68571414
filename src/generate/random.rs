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

    /// The stream that belongs to a seed and a number: that of each second of a log, of each list of episodes. The number
    /// goes through the generator once, so neighbours have nothing in common.
    pub fn stream(seed: u64, number: u64) -> u64 {
        Random::new(seed ^ Random::new(number).bits()).bits()
    }

    /// A number from 0 to `limit - 1`; 0 when the limit is 0. Scaled rather than divided: the bias is below 2^-32 times
    /// the limit, far less than a log can show.
    pub fn below(&mut self, limit: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// A number from `low` to `high`, both included. Widths are far below 2^63, so the bias shows nowhere.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).max(0) as u64 + 1;
        low + ((u128::from(self.bits()) * u128::from(width)) >> 64) as i64
    }

    /// True `per_million` times in a million.
    pub fn chance_in_million(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < per_million
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

    /// Weights in any unit. They are scaled to whole numbers; what is above 0 stays so.
    pub fn of(weights: &[f64]) -> Weights {
        // The sum stays within 32 bits, also when each is rounded up to 1.
        const SUM: f64 = 2_000_000_000.0;
        let sum: f64 = weights.iter().sum();
        let scaled = |weight: &f64| if *weight > 0.0 { ((weight / sum * SUM) as u32).max(1) } else { 0 };
        Weights::new(weights.iter().map(scaled))
    }

    /// The binomial distribution with p = 1/2 over `count` indexes: those in the middle have most, and few get as far as
    /// the ends. By the ratio of neighbours, (n - k) / (k + 1), from the middle outwards, so nothing gets too small to
    /// be told from 0 where it counts.
    pub fn binomial(count: u32) -> Weights {
        let (n, middle) = (count.max(1) - 1, (count.max(1) - 1) / 2);
        let mut weights = vec![0.0; n as usize + 1];
        weights[middle as usize] = 1.0;
        for k in middle..n {
            weights[k as usize + 1] = weights[k as usize] * f64::from(n - k) / f64::from(k + 1);
        }
        for k in (1..=middle).rev() {
            weights[k as usize - 1] = weights[k as usize] * f64::from(k) / f64::from(n - k + 1);
        }
        Weights::of(&weights)
    }

    /// Zipf-Mandelbrot over `count` ranks: rank r (from 1) weighs 1 / (r + flatness). Words, pages and visitors are
    /// spread about like this; a larger flatness takes weight off the first few.
    pub fn zipf(count: u32, flatness: u32) -> Weights {
        // Large enough that the last of some ten thousand ranks still differ, small enough that their sum fits 32 bits.
        const FIRST: u32 = 200_000_000;
        Weights::new((1..=count).map(|rank| (FIRST / (rank + flatness)).max(1)))
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
        let weights = Weights::zipf(200_000, 0); // panics if the first weight is too large
        let mut random = Random::new(2);
        assert!((0..1000).all(|_| weights.draw(&mut random) < 200_000));
    }

    #[test]
    fn the_binomial_has_its_mean_and_variance() {
        for count in [1, 2, 101, 20_000] {
            let (weights, mut random) = (Weights::binomial(count), Random::new(3));
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..100_000 {
                let drawn = weights.draw(&mut random) as f64;
                sum += drawn;
                squares += drawn * drawn;
            }
            let (mean, n) = (sum / 1e5, f64::from(count - 1));
            let variance = squares / 1e5 - mean * mean;
            assert!((mean - n / 2.0).abs() <= n.sqrt() * 0.02 + 1e-9, "{count}: mean {mean}");
            assert!((variance - n / 4.0).abs() <= n * 0.02 + 1e-9, "{count}: variance {variance}");
        }
    }

    #[test]
    fn numbers_between_reach_both_ends() {
        let mut random = Random::new(4);
        let drawn: Vec<i64> = (0..1000).map(|_| random.between(-3, 3)).collect();
        assert!((-3..=3).all(|number| drawn.contains(&number)) && drawn.iter().all(|n| (-3..=3).contains(n)));
        assert_eq!(random.between(5, 5), 5);
    }
}
