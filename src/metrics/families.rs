//! Writes families of samples with the encoder of `prometheus-client`.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::tally::Observed;

/// What a family is called, without prefix and without what the type and the unit add to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<&'static Unit>,
}

/// A family without a unit. The help is a sentence.
pub(super) const fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, help, unit: None }
}

impl Family {
    pub(super) const fn in_unit(self, unit: &'static Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }
}

/// What the integers of a histogram count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Microseconds,
    Things,
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "samples are floats; 53 bits are enough for centuries")]
    fn in_base_unit(self, value: u64) -> f64 {
        match self {
            Self::Microseconds => value as f64 / 1e6,
            Self::Things => value as f64,
        }
    }
}

/// Writes one family after the other.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    pub(super) fn gauge(&mut self, family: Family, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.begin(family, MetricType::Gauge)?.encode_gauge(value)
    }

    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(family, MetricType::Gauge)?;
        samples
            .into_iter()
            .try_for_each(|(labels, value)| encoder.encode_family(&labels)?.encode_gauge(&value))
    }

    pub(super) fn counter(&mut self, family: Family, value: &impl EncodeCounterValue) -> fmt::Result {
        self.begin(family, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(value, None)
    }

    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(family, MetricType::Counter)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    pub(super) fn histogram(&mut self, family: Family, counted: Counted, observed: &Observed) -> fmt::Result {
        encode_histogram(self.begin(family, MetricType::Histogram)?, counted, observed)
    }

    pub(super) fn histograms<L: EncodeLabelSet>(
        &mut self,
        family: Family,
        counted: Counted,
        samples: impl IntoIterator<Item = (L, Observed)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(family, MetricType::Histogram)?;
        samples.into_iter().try_for_each(|(labels, observed)| {
            encode_histogram(encoder.encode_family(&labels)?, counted, &observed)
        })
    }

    pub(super) fn info(&mut self, family: Family, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.begin(family, MetricType::Info)?.encode_info(labels)
    }

    fn begin(&mut self, family: Family, kind: MetricType) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(family.name, family.help, family.unit, kind)
    }
}

fn encode_histogram(mut encoder: MetricEncoder<'_>, counted: Counted, observed: &Observed) -> fmt::Result {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| counted.in_base_unit(bound));
    let buckets: Vec<_> = observed.buckets.iter().map(|(largest, count)| (bound(*largest), *count)).collect();
    let sum = counted.in_base_unit(observed.sum);
    encoder.encode_histogram::<NoLabelSet>(sum, observed.count, &buckets, None)
}
