//! `bazaar top`: what the console shows, at a glance in a terminal.
//!
//! It follows the console's stream of one gateway, which looks at all of them, and makes of it what the console's page makes of it.
//! What others say is harmless text from where it is read on.
//!
//! - [`text`]: words for figures, and texts of others that are safe to show;
//! - [`figures`]: what was counted, over a time;
//! - [`moment`]: what a gateway says of everybody;
//! - [`alarms`]: what is wrong, in words;
//! - [`seen`]: who was there and is gone;
//! - [`board`]: what is shown, made of these;
//! - [`stream`]: how it comes;
//! - [`model`]: what is known, and how it is looked at;
//! - [`table`], [`panels`], [`draw`]: how that looks, on any screen;
//! - [`screen`]: the terminal;
//! - here: one look as text, and the way in.

mod text;
mod figures;
mod moment;
mod alarms;
mod seen;
mod board;
mod stream;
mod model;
mod table;
mod panels;
mod draw;
mod screen;

use std::env;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::admin::{Admin, AdminError};
use crate::cli;
use crate::client::ClientError;
use crate::error::Error;
use crate::output;
use model::{Look, Model, Period};
use stream::{News, Over, Stream};
use table::Palette;

/// How long one look is gone for beyond what is asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Columns of text, where nobody says how many; and how many there may be.
const COLUMNS: u16 = 80;
const COLUMNS_MIN: u16 = 20;
const COLUMNS_MAX: u16 = 1000;

/// Seconds that one look is over, where nobody says how many.
const SECONDS: u64 = 2;

/// Shows it until somebody has seen enough, or prints one look.
pub async fn run(args: cli::Top) -> Result<(), Error> {
    let cli::Top {
        admin,
        once,
        width,
        seconds,
    } = args;
    if !once && !screen::is_there() {
        let advice = "standard output is not a terminal: `bazaar top --once` prints one look as text, and `bazaar status --json` is \
                      for programs";
        return Err(Error::Usage(advice.to_owned()));
    }
    let mut admin = Admin::new(admin)?;
    let stream = Stream::open(&mut admin).await?;
    if !once {
        return screen::show(admin, stream, palette()).await;
    }
    let seconds = seconds.unwrap_or(SECONDS);
    let columns = width.unwrap_or_else(columns).into();
    let text = look_once(stream, Duration::from_secs(seconds), columns).await?;
    Ok(output::print(&text)?)
}

/// One look, over so long a time, as text.
async fn look_once(mut stream: Stream, over: Duration, columns: usize) -> Result<String, Error> {
    let mut model = Model::default();
    let mut first = None;
    let mut has_policies = false;
    let after = over + PATIENCE;
    let looking = async {
        loop {
            let news = stream.next().await?;
            match &news {
                News::Policies(_) => has_policies = true,
                News::Moment(now) => {
                    first.get_or_insert(now.at());
                }
                News::Lost(_) => {}
            }
            model.take(news, Instant::now());
            let Some(shown) = &model.shown else {
                continue;
            };
            let is_over =
                first.is_some_and(|first| shown.board.now.at() - first >= over.as_secs_f64());
            if has_policies && is_over {
                let look = Look {
                    period: Period::SinceStart,
                    ..Look::default()
                };
                return Ok::<_, Over>(draw::as_text(&shown.board, &look, columns));
            }
        }
    };
    match timeout(after, looking).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(Over::Nonsense(error))) => Err(AdminError::Nonsense(error).into()),
        Ok(Err(over)) => Err(AdminError::from(ClientError::Exchange(over.into())).into()),
        Err(_) => Err(AdminError::from(ClientError::TimedOut { after }).into()),
    }
}

/// As wide as the shell says that its terminal is.
fn columns() -> u16 {
    let said = env::var("COLUMNS").ok();
    let columns: Option<u16> = said.and_then(|said| said.parse().ok());
    columns.map_or(COLUMNS, |columns| columns.clamp(COLUMNS_MIN, COLUMNS_MAX))
}

/// With no colours where nobody wants them, see <https://no-color.org>.
fn palette() -> Palette {
    match env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => Palette::Plain,
        false => Palette::Colours,
    }
}
