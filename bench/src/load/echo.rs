//! Small round trips: every connection sends a message, waits until all of it is back, and goes on.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;

use super::dial::{Target, dial_by};
use super::exchange::{Answer, Exchange};
use super::wire::Wire;
use super::{Outcome, tls};

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Bytes of one message, at most 16 KiB: it must go out in one piece
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) size: u16,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

/// Opens the connections and keeps one message in flight on each of them.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    match target.tls {
        None => run_over::<TcpStream>(target, load),
        Some(_) => run_over::<tls::Stream>(target, load),
    }
}

fn run_over<W: Wire>(target: &Target, load: &Load) -> io::Result<Outcome> {
    let mut exchange = open::<W>(target, load.connections, load.size)?;
    exchange.warm_up(load.warmup)?;
    exchange.measure(target, load.seconds)
}

/// Connections to the sink that echo messages of this size.
pub(crate) fn open<W: Wire>(
    target: &Target,
    connections: u16,
    size: u16,
) -> io::Result<Exchange<W>> {
    let message = vec![0x5a; size.into()];
    let answer = Answer { start: message.clone(), length: message.len() };
    let mut exchange = Exchange::new(message, answer)?;
    let dialler = W::dialler(target)?;
    for _ in 0..connections {
        exchange.add(dial_by::<W>(&dialler, target, b"E")?.stream)?;
    }
    Ok(exchange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    #[test]
    fn messages_come_back_and_take_their_time() {
        for target in
            [testing::sink(false), testing::sink(true), testing::tls(testing::Offer::Right)]
        {
            let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
            let load = Load { connections: 8, size: 100, seconds, warmup };
            let outcome = run(&target, &load).unwrap();
            assert!(outcome.units > 10 && outcome.seconds >= 0.1);
            assert!(outcome.load_cpu_seconds > 0.0 && outcome.cpu_seconds.is_none());
            assert!(outcome.latency.unwrap().quantile_us(0.5) > 1.0);
        }
    }
}
