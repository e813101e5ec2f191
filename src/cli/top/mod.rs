//! `ringgate top`: what a running process does, in a terminal, once a second.
//!
//! | file | what it does |
//! | --- | --- |
//! | `feed` | asks the admin endpoint, in a thread, so that keys work while nothing answers |
//! | `model` | makes tables and rates of two responses |
//! | `draw` | draws |

mod draw;
mod feed;
mod model;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::draw::Screen;
use self::feed::{Feed, News};
use self::model::{Model, View};
use super::ask::Asked;
use crate::error::Error;

/// How long a key may have to wait for news, and news for the screen.
const LOOK: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    asked: Asked,
    /// The seconds between two looks.
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=60)
    )]
    interval: u8,
}

/// Shows it until a key or a signal ends it.
pub(super) fn run(top: &Top) -> Result<(), Error> {
    let endpoint = top.asked.endpoint()?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let advice = "`ringgate status` prints the numbers once";
        return Err(Error::usage("`ringgate top` needs a terminal", "there is none", advice));
    }
    let failed = |error: io::Error| Error::start("cannot use the terminal", error, "");
    let feed = Feed::start(endpoint, Duration::from_secs(top.interval.into())).map_err(failed)?;
    // It also makes a panic restore the terminal before its message.
    let terminal = ratatui::try_init().map_err(failed)?;
    let result = show(terminal, &feed);
    ratatui::restore();
    result.map_err(failed)
}

/// Draws, and does what keys say.
fn show(mut terminal: DefaultTerminal, feed: &Feed) -> io::Result<()> {
    let mut app = App::default();
    feed.show(app.screen.view);
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut app.screen, &app.model))?;
        if !terminal_is_there()? {
            return Ok(());
        }
        if event::poll(Duration::ZERO)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            if app.key(key) == After::End {
                return Ok(());
            }
            feed.show(app.screen.view);
        }
        for news in feed.news() {
            match news {
                News::Sample(sample) if !app.screen.is_paused => app.model.add(*sample),
                News::Sample(_) => {}
                News::Gone(why) => app.model.lose(why),
                News::Signal => return Ok(()),
            }
        }
    }
}

/// Waits for something to read, for [`LOOK`] at most. Returns false when the terminal is gone: the
/// library that reads keys would never return then, because it takes the end of a file for a key
/// that is not complete yet.
fn terminal_is_there() -> io::Result<bool> {
    let input = io::stdin();
    let mut wanted = [PollFd::new(&input, PollFlags::IN)];
    let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    match poll(&mut wanted, Some(&look)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(!wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// What is shown, and how.
#[derive(Default)]
struct App {
    model: Model,
    screen: Screen,
}

/// What comes after a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Draw,
    End,
}

impl App {
    fn key(&mut self, key: KeyEvent) -> After {
        let screen = &mut self.screen;
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return After::End,
            KeyCode::Char('q') => return After::End,
            // Any key closes the list of keys.
            _ if screen.shows_keys => screen.shows_keys = false,
            KeyCode::Esc => return After::End,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => screen.shows_keys = true,
            KeyCode::Char(' ') => screen.is_paused = !screen.is_paused,
            KeyCode::Char('r') => screen.sort_mut().reverse(),
            KeyCode::Right | KeyCode::Char('>') => screen.sort_mut().shift(1),
            KeyCode::Left | KeyCode::Char('<') => screen.sort_mut().shift(-1),
            KeyCode::Tab => screen.turn(screen.view.next(1)),
            KeyCode::BackTab => screen.turn(screen.view.next(View::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='4') => {
                screen.turn(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Up | KeyCode::Char('k') => screen.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
            KeyCode::PageUp => screen.scroll(-10),
            KeyCode::PageDown => screen.scroll(10),
            KeyCode::Home => screen.scroll(isize::MIN),
            KeyCode::End => screen.scroll(isize::MAX),
            _ => {}
        }
        After::Draw
    }
}
