//! `bazaar protocol`: which version of the services' protocol the bazaar is at.

use serde::Deserialize;

use crate::admin::{Admin, AdminError};
use crate::cli;
use crate::error::Error;
use crate::output::{self, Table};

/// Does what the command says.
pub async fn run(command: cli::Protocol) -> Result<(), Error> {
    let (answer, as_json) = match command {
        cli::Protocol::Show { json, admin } => {
            let answer = Admin::new(admin)?.get("/protocol").await?;
            (answer, json)
        }
        cli::Protocol::Raise { admin } => {
            let answer = Admin::new(admin)?.post("/protocol/raise").await?;
            (answer, false)
        }
    };
    let text = if as_json {
        String::from_utf8_lossy(&answer).trim_end().to_owned() + "\n"
    } else {
        describe(&serde_json::from_slice(&answer).map_err(AdminError::Nonsense)?)
    };
    Ok(output::print(&text)?)
}

#[derive(Deserialize)]
struct Shown {
    protocol: u32,
    newest: u32,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    service: String,
    answers: bool,
    release: Option<String>,
    speaks: Option<[u32; 2]>,
}

fn describe(shown: &Shown) -> String {
    let Shown {
        protocol,
        newest,
        services,
    } = shown;
    let heading = if protocol < newest {
        format!(
            "the bazaar is at version {protocol} of the protocol; `bazaar protocol raise` takes it to {newest}, \
             from which it does not come back\n"
        )
    } else {
        format!("the bazaar is at version {protocol} of the protocol\n")
    };
    let mut table = Table::new(["service", "release", "speaks"]);
    for service in services {
        let release = match (&service.release, service.answers) {
            (Some(release), _) => release,
            (None, true) => "does not say, as 0.1.0",
            (None, false) => "does not answer",
        };
        let speaks = service.speaks.map_or_else(
            || "-".to_owned(),
            |[oldest, newest]| format!("{oldest} to {newest}"),
        );
        table.row([service.service.clone(), release.to_owned(), speaks]);
    }
    heading + &table.render()
}
