//! HTTP/1.1 requests on connections that stay open, one in flight on each. The answer is a small
//! one: the proxy's own redirect unless another is asked for.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;

use super::dial::Target;
use super::exchange::Exchange;
use super::http::Request;
use super::wire::Wire;
use super::{Outcome, tls};

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) request: Request,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

/// Learns the answer from a first request, and then expects nothing else on all connections.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    target.must_not_upgrade()?;
    match target.tls {
        None => run_over::<TcpStream>(target, load),
        Some(_) => run_over::<tls::Stream>(target, load),
    }
}

fn run_over<W: Wire>(target: &Target, load: &Load) -> io::Result<Outcome> {
    let mut exchange = open::<W>(target, load.connections, &load.request)?;
    exchange.warm_up(load.warmup)?;
    exchange.measure(target, load.seconds)
}

/// Connections that send the request as soon as they have their answer.
pub(crate) fn open<W: Wire>(
    target: &Target,
    connections: u16,
    request: &Request,
) -> io::Result<Exchange<W>> {
    let answer = request.learn::<W>(target, false)?;
    let mut exchange = Exchange::new(request.bytes(&target.host, false), answer)?;
    let dialler = W::dialler(target)?;
    for _ in 0..connections {
        exchange.add(W::connect(&dialler, target)?)?;
    }
    Ok(exchange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    fn load() -> Load {
        let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
        Load { request: Request::redirect(), connections: 4, seconds, warmup }
    }

    #[test]
    fn bodies_are_counted_and_another_length_is_an_error() {
        let (target, request) = (testing::backend(), Request::of("/some/1024", 1024));
        assert!(run(&target, &Load { request, ..load() }).unwrap().units > 10);
        let request = Request::of("/some/1024", 1023);
        let error = run(&target, &Load { request, ..load() }).err().unwrap().to_string();
        assert!(error.contains("1024 bytes"), "{error}");
    }

    #[test]
    fn redirects_are_counted_and_another_answer_is_an_error() {
        let target = testing::http("HTTP/1.1 301 Moved\r\nContent-Length: 3\r\n\r\nabc");
        let outcome = run(&target, &load()).unwrap();
        assert!(outcome.units > 10 && outcome.latency.is_some());
        let target = testing::http("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        let error = run(&target, &load()).err().unwrap().to_string();
        assert!(error.contains("HTTP/1.1 404 No"), "{error}");
    }
}
