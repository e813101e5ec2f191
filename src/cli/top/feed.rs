//! Asks the admin endpoint again and again, and waits for signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::model::View;
use crate::control::Endpoint;

/// How long a response may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the screen may take to end after a signal.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that are shown: those with the most bytes.
const CONNECTIONS: &str = "/connections?limit=200";

/// What the endpoint has said.
pub(super) struct Sample {
    /// When it was asked.
    pub(super) at: Instant,
    pub(super) stats: Value,
    /// Of the view alone that is shown: it costs the workers something. `None` if it is not shown,
    /// or not offered.
    pub(super) more: Option<(View, Value)>,
}

/// What has happened.
pub(super) enum News {
    Sample(Box<Sample>),
    /// Nothing answers, and why.
    Gone(String),
    /// A signal ends the program.
    Signal,
}

/// A thread that asks.
pub(super) struct Feed {
    news: Receiver<News>,
    /// The position of the view that is shown.
    view: Arc<AtomicUsize>,
}

impl Feed {
    /// Starts to ask.
    ///
    /// # Errors
    /// There is no thread, or no runtime for it.
    pub(super) fn start(endpoint: Endpoint, interval: Duration) -> io::Result<Feed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, news) = channel();
        let view = Arc::new(AtomicUsize::new(0));
        let shown = Arc::clone(&view);
        let ask = async move {
            tokio::select! {
                () = ask_forever(&endpoint, interval, &shown, &sender) => {}
                _ = signals() => {
                    drop(sender.send(News::Signal));
                    tokio::time::sleep(PATIENCE).await;
                    // The terminal may have gone just before the screen looked for a key.
                    ratatui::restore();
                    std::process::exit(1);
                }
            }
        };
        thread::Builder::new().name("feed".into()).spawn(move || runtime.block_on(ask))?;
        Ok(Feed { news, view })
    }

    /// Says which view is shown.
    pub(super) fn show(&self, view: View) {
        self.view.store(view as usize, Ordering::Relaxed);
    }

    /// What has happened since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }
}

/// Waits for a signal that asks the program to end.
async fn signals() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}

/// Asks until there is no receiver any more.
async fn ask_forever(
    endpoint: &Endpoint,
    interval: Duration,
    shown: &AtomicUsize,
    news: &Sender<News>,
) {
    let mut due = tokio::time::interval(interval);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = shown.load(Ordering::Relaxed);
    loop {
        // Another view is asked for at once.
        while tokio::time::timeout(Duration::from_millis(100), due.tick()).await.is_err() {
            if std::mem::replace(&mut last, shown.load(Ordering::Relaxed)) != last {
                break;
            }
        }
        let view = View::ALL.get(shown.load(Ordering::Relaxed)).copied().unwrap_or_default();
        let event = match ask(endpoint, view).await {
            Ok(sample) => News::Sample(Box::new(sample)),
            Err(why) => News::Gone(why),
        };
        if news.send(event).is_err() {
            return;
        }
    }
}

/// Asks once.
///
/// # Errors
/// Why there is nothing to show.
async fn ask(endpoint: &Endpoint, view: View) -> Result<Sample, String> {
    let at = Instant::now();
    let stats = get(endpoint, "/stats").await?;
    let path = match view {
        View::Connections => Some(CONNECTIONS),
        View::Endpoints => Some("/clusters"),
        View::Listeners | View::Workers => None,
    };
    // A process of another version may not offer it.
    let more = match path {
        Some(path) => get(endpoint, path).await.ok().map(|value| (view, value)),
        None => None,
    };
    Ok(Sample { at, stats, more })
}

async fn get(endpoint: &Endpoint, path: &str) -> Result<Value, String> {
    let reply = endpoint.get(path, LIMIT).await.map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    if reply.is_success && value.is_object() {
        return Ok(value);
    }
    if reply.is_success {
        return Err("something else answers at this address".to_owned());
    }
    Err(value["error"].as_str().unwrap_or("it has refused").to_owned())
}
