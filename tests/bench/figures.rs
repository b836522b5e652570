//! What was measured, before anybody judges it.

use anyhow::{Context, Result, ensure};

/// One figure, in the unit that `budgets` gives its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub id: &'static str,
    pub value: f64,
    /// The same with the trivial init, where there is such a thing.
    pub limit: Option<f64>,
    /// The largest distance between two measurements, in per cent of the smallest; none for a single one.
    pub spread: Option<f64>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Takes what was measured once.
    pub fn once(&mut self, id: &'static str, value: f64) {
        self.0.push(Figure { id, value, limit: None, spread: None });
    }

    /// Takes the median of what was measured several times.
    pub fn median(&mut self, id: &'static str, samples: &[f64]) -> Result<()> {
        self.beside(id, samples, None)
    }

    /// As [`Figures::median`], with the same of the limit.
    pub fn beside(
        &mut self,
        id: &'static str,
        samples: &[f64],
        limit: Option<&[f64]>,
    ) -> Result<()> {
        let value = median(samples).with_context(|| format!("{id}: nothing was measured"))?;
        let limit = limit.map(|samples| median(samples).context("no limit")).transpose()?;
        self.0.push(Figure { id, value, limit, spread: spread(samples) });
        Ok(())
    }

    pub fn all(&self) -> &[Figure] {
        &self.0
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn spread(samples: &[f64]) -> Option<f64> {
    let least = samples.iter().copied().reduce(f64::min)?;
    let most = samples.iter().copied().reduce(f64::max)?;
    (samples.len() > 1 && least > 0.0).then(|| (most - least) / least * 100.0)
}

/// Millions.
pub fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

/// KiB.
pub fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// MiB.
pub fn mib(bytes: u64) -> f64 {
    kib(bytes) / 1024.0
}

/// A later count less an earlier one.
pub fn since(later: u64, earlier: u64) -> Result<u64> {
    ensure!(later >= earlier, "a counter went back from {earlier} to {later}");
    Ok(later - earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_spread_is_told_of_several_only() {
        assert_eq!(spread(&[100.0, 110.0, 105.0]), Some(10.0));
        assert_eq!(spread(&[100.0]), None);
        assert_eq!(spread(&[]), None);
    }
}
