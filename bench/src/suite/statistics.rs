//! Medians, spreads and paired ratios of samples.

use super::results::{Contender, Results, Sample, Workload};

/// A figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Units a second.
    Rate,
    /// CPU seconds a unit.
    Cost,
    P50,
    P99,
    P999,
    /// Bytes a second of the bulk beside small messages.
    Beside,
}

impl Figure {
    /// The figure, where the sample has it.
    pub(crate) fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Figure::Rate => Some(sample.rate),
            Figure::Cost => sample.cost,
            Figure::P50 => sample.latency.map(|latency| latency.p50),
            Figure::P99 => sample.latency.map(|latency| latency.p99),
            Figure::P999 => sample.latency.map(|latency| latency.p999),
            Figure::Beside => sample.beside,
        }
    }
}

/// Lowest, median and highest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            (sorted[half - 1] + sorted[half]) / 2.0
        };
        Some(Spread { median, low, high })
    }

    /// All three, multiplied: for another unit.
    pub(crate) fn scaled(self, factor: f64) -> Spread {
        let Spread { median, low, high } = self;
        Spread { median: median * factor, low: low * factor, high: high * factor }
    }
}

impl Results {
    /// The samples of one contender at one workload, by round.
    pub(crate) fn of(
        &self,
        workload: Workload,
        contender: Contender,
    ) -> impl Iterator<Item = &Sample> {
        let wanted =
            move |sample: &&Sample| sample.workload == workload && sample.contender == contender;
        self.samples.iter().filter(wanted)
    }

    /// A figure over all rounds.
    pub(crate) fn spread(
        &self,
        workload: Workload,
        contender: Contender,
        figure: Figure,
    ) -> Option<Spread> {
        let values = self.of(workload, contender).filter_map(|sample| figure.of(sample));
        Spread::of(&values.collect::<Vec<f64>>())
    }

    /// A figure of one contender over the same figure of another, each ratio within one round.
    pub(crate) fn ratio(
        &self,
        figure: Figure,
        ours: (Workload, Contender),
        theirs: (Workload, Contender),
    ) -> Option<Spread> {
        let ratios = self.of(ours.0, ours.1).filter_map(|our| {
            let their = self.of(theirs.0, theirs.1).find(|their| their.round == our.round)?;
            Some(figure.of(our)? / figure.of(their)?)
        });
        Spread::of(&ratios.collect::<Vec<f64>>())
    }

    /// The workloads of this run, in the order in which they were first measured.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let mut workloads = Vec::new();
        for sample in &self.samples {
            if !workloads.contains(&sample.workload) {
                workloads.push(sample.workload);
            }
        }
        workloads
    }

    /// Who was measured at a workload, in the order of [`Contender`].
    pub(crate) fn contenders(&self, workload: Workload) -> Vec<Contender> {
        let mut contenders: Vec<Contender> = self
            .samples
            .iter()
            .filter(|sample| sample.workload == workload)
            .map(|sample| sample.contender)
            .collect();
        contenders.sort();
        contenders.dedup();
        contenders
    }
}
