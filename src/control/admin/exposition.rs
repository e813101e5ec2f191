//! Families of numbers in the text format of Prometheus.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::observe::histogram::Times;

/// Writes families of numbers.
pub(super) struct Out<'a>(pub(super) DescriptorEncoder<'a>);

/// The names and values of labels.
pub(super) type Labels<'l, const N: usize> = [(&'static str, &'l str); N];

impl Out<'_> {
    /// Numbers that only grow. `_total` is added to the name.
    pub(super) fn counter<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        numbers: impl IntoIterator<Item = (Labels<'l, N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, number) in numbers {
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, f64, f64>(&number, None)?;
        }
        Ok(())
    }

    /// Numbers that go up and down.
    pub(super) fn gauge<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        numbers: impl IntoIterator<Item = (Labels<'l, N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, number) in numbers {
            family.encode_family(&labels)?.encode_gauge(&number)?;
        }
        Ok(())
    }

    /// Times, by their buckets.
    pub(super) fn histogram<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = (Labels<'l, N>, Times)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, times) in all {
            let buckets: Vec<(f64, u64)> = times.buckets().collect();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                times.seconds(),
                times.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
