//! Whether two samples of times have one mean: Welch's t, as tests for leaks in time use it (Reparaz and others, "dude, is my code constant
//! time?", 2017).

use serde::Serialize;

/// Beyond this, |t| of large samples is no accident: the bound that leakage tests use.
pub const BOUND: f64 = 4.5;

/// Two samples compared. Units: microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Median of the first.
    pub first_median_us: f64,
    /// Median of the second.
    pub second_median_us: f64,
    /// Mean of the first less mean of the second, of what was kept.
    pub mean_difference_us: f64,
    /// Half the width of the 95 % interval around that difference.
    pub half_width_us: f64,
    /// Welch's t; 0 when nothing varies.
    pub t: f64,
}

impl Comparison {
    /// In words.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "medians {:.1} and {:.1} us, means differ by {:.2} us (95 %: +- {:.2}), t = {:.2}",
            self.first_median_us, self.second_median_us, self.mean_difference_us, self.half_width_us, self.t
        )
    }
}

/// Compares two samples, after the slowest tenth of each was left out: a machine's pauses are in there, not the program's.
///
/// # Panics
/// For a sample of fewer than ten.
#[must_use]
pub fn compare(first: &[f64], second: &[f64]) -> Comparison {
    let (first, second) = (sorted(first), sorted(second));
    let (a, b) = (kept(&first), kept(&second));
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(a), moments(b));
    let error = (error_a + error_b).sqrt();
    let difference = mean_a - mean_b;
    Comparison {
        first_median_us: median(&first),
        second_median_us: median(&second),
        mean_difference_us: difference,
        half_width_us: 1.96 * error,
        t: if error > 0.0 { difference / error } else { 0.0 },
    }
}

fn sorted(sample: &[f64]) -> Vec<f64> {
    assert!(sample.len() >= 10, "a sample of fewer than ten says nothing");
    let mut sample = sample.to_vec();
    sample.sort_by(f64::total_cmp);
    sample
}

fn kept(sorted: &[f64]) -> &[f64] {
    &sorted[..sorted.len() - sorted.len() / 10]
}

fn median(sorted: &[f64]) -> f64 {
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

/// The mean, and the variance of the mean.
fn moments(sample: &[f64]) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "a sample has thousands of elements at most")]
    let count = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / count;
    let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times around 1000 us that scatter by some 50 us, the same in every run.
    fn sample(seed: u64, shift: f64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(state >> 40).unwrap()) / f64::from(1_u32 << 24)
        };
        (0..400).map(|_| 1000.0 + shift + 50.0 * (next() + next() + next() - 1.5)).collect()
    }

    #[test]
    fn a_difference_is_seen_and_none_is_not() {
        let same = compare(&sample(1, 0.0), &sample(2, 0.0));
        assert!(same.t.abs() < BOUND && same.mean_difference_us.abs() < same.half_width_us * 2.0, "{same:?}");
        let other = compare(&sample(1, 20.0), &sample(2, 0.0));
        assert!(other.t > BOUND && other.first_median_us > other.second_median_us, "{other:?}");
        assert!((other.mean_difference_us - 20.0).abs() < 3.0 * other.half_width_us, "{other:?}");
        assert!(compare(&sample(2, 0.0), &sample(1, 20.0)).t < -BOUND);
    }

    #[test]
    fn pauses_of_the_machine_do_not_count_and_constants_are_alike() {
        let mut paused = sample(1, 0.0);
        paused[..30].fill(1e6);
        assert!(compare(&paused, &sample(2, 0.0)).mean_difference_us.abs() < 20.0);
        assert!(compare(&[7.0; 20], &[7.0; 20]).t.abs() < f64::EPSILON);
    }
}
