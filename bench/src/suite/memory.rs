//! What one connection at rest costs: weighings against the one before the first connection.

use super::results::{Contender, Rest, Results, Weighing};

/// What a contender has grown by, for each connection or in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// Anonymous memory. Less than nothing where more was given back than taken.
    pub(crate) bytes: f64,
    pub(crate) descriptors: f64,
}

impl Results {
    /// The numbers of connections that some contender was weighed with, from few to many.
    pub(crate) fn steps(&self, rest: Rest) -> Vec<u16> {
        let weights = self.weights.iter().filter(|weighing| weighing.rest == rest);
        let mut steps: Vec<u16> = weights
            .filter(|weighing| !weighing.closed)
            .map(|weighing| weighing.connections)
            .collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Who was weighed, in the order of [`Contender`].
    pub(crate) fn weighed(&self, rest: Rest) -> Vec<Contender> {
        let weights = self.weights.iter().filter(|weighing| weighing.rest == rest);
        let mut contenders: Vec<Contender> = weights.map(|weighing| weighing.contender).collect();
        contenders.sort();
        contenders.dedup();
        contenders
    }

    /// A contender while it held so many connections.
    pub(crate) fn holding(
        &self,
        contender: Contender,
        rest: Rest,
        connections: u16,
    ) -> Option<&Weighing> {
        let mut weights = self.weights.iter().filter(|weighing| !weighing.closed);
        weights.find(|weighing| {
            (weighing.contender, weighing.rest, weighing.connections)
                == (contender, rest, connections)
        })
    }

    /// What each of so many connections added to a contender that held none.
    pub(crate) fn growth_each(
        &self,
        contender: Contender,
        rest: Rest,
        connections: u16,
    ) -> Option<Growth> {
        if connections == 0 {
            return None;
        }
        let empty = self.holding(contender, rest, 0)?;
        let held = self.holding(contender, rest, connections)?;
        let all = growth(empty, held);
        let connections = f64::from(connections);
        let (bytes, descriptors) = (all.bytes / connections, all.descriptors / connections);
        Some(Growth { bytes, descriptors })
    }

    /// What stayed after all connections were closed.
    pub(crate) fn growth_left(&self, contender: Contender, rest: Rest) -> Option<Growth> {
        let empty = self.holding(contender, rest, 0)?;
        let closed = self.weights.iter().find(|weighing| {
            weighing.closed && weighing.contender == contender && weighing.rest == rest
        })?;
        Some(growth(empty, closed))
    }
}

fn growth(before: &Weighing, after: &Weighing) -> Growth {
    Growth {
        bytes: after.anonymous as f64 - before.anonymous as f64,
        descriptors: after.descriptors as f64 - before.descriptors as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn growth_is_over_the_weighing_without_connections() {
        let mut results = example::nothing();
        let add = |results: &mut Results, connections, closed, anonymous, descriptors| {
            let mut weighing = example::weighing(Contender::Ringgate, Rest::Pairs, connections);
            (weighing.closed, weighing.anonymous) = (closed, anonymous);
            weighing.descriptors = descriptors;
            results.weights.push(weighing);
        };
        add(&mut results, 1000, false, 5_000_000, 2030);
        assert_eq!(results.growth_each(Contender::Ringgate, Rest::Pairs, 1000), None);

        add(&mut results, 0, false, 2_000_000, 30);
        add(&mut results, 0, true, 1_500_000, 31);
        let each = results.growth_each(Contender::Ringgate, Rest::Pairs, 1000);
        assert_eq!(each, Some(Growth { bytes: 3000.0, descriptors: 2.0 }));
        let left = results.growth_left(Contender::Ringgate, Rest::Pairs);
        assert_eq!(left, Some(Growth { bytes: -500_000.0, descriptors: 1.0 }));
        assert_eq!(results.growth_each(Contender::Ringgate, Rest::Pairs, 0), None);
        assert_eq!(results.growth_each(Contender::Nginx, Rest::Pairs, 1000), None);
        assert_eq!(results.growth_left(Contender::Ringgate, Rest::KeepAlive), None);
        assert_eq!(results.steps(Rest::Pairs), [0, 1000]);
    }
}
