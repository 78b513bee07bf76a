//! Envoy: with an answer that its configuration has, with its cache in front of the origin server, and with a filter in
//! WebAssembly (Proxy-Wasm) that answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::caches::{CONSTANT, Cache, STALE, Started};
use super::{Site, fill, write};
use crate::error::Error;
use crate::origin::{BODY, Origin};
use crate::process::{self, Process, command, find, free_addresses};

/// What its routes do where its filters answer: so that nothing else does.
const NOWHERE: &str = "direct_response: {status: 404}";

/// Its cache, in memory. Envoy's documentation says of it that it is not meant for production; there is no other in memory.
const CACHE: &str = r#"- {name: envoy.filters.http.cache_v2, typed_config: {"@type": "type.googleapis.com/envoy.extensions.filters.http.cache_v2.v3.CacheV2Config", typed_config: {"@type": "type.googleapis.com/envoy.extensions.http.cache_v2.simple_http_cache.v3.SimpleHttpCacheV2Config"}}}"#;

/// What builds of Envoy say that were made without a runtime for WebAssembly.
const WITHOUT_WASM: [&str; 2] = [
    "compiled without support for it",
    "Didn't find a registered implementation for 'envoy.filters.http.wasm'",
];

/// How it is set up.
struct Setup<'a> {
    /// What reports call it.
    name: &'static str,
    /// Its directory.
    dir: &'static str,
    lacks: &'static str,
    /// What is before the router, a list's item in YAML.
    filter: &'a str,
    /// What the route does, a field in YAML.
    action: &'a str,
}

/// As fast as it can answer at all: the route has the answer.
pub fn direct(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    let action = format!("direct_response: {{status: 200, body: {{inline_string: '{BODY}'}}}}");
    let setup = Setup {
        name: "Envoy, constant",
        dir: "envoy-direct",
        lacks: "a policy in wasm; a linearizable cache: its answer is a constant",
        filter: "",
        action: &action,
    };
    let (process, place) = setup.start(site, origin)?;
    Cache::wait(place.started(), vec![process], BODY)
}

/// Its cache.
pub fn cache(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    let setup = Setup {
        name: "Envoy, cache",
        dir: "envoy-cache",
        lacks: STALE,
        filter: CACHE,
        action: "route: {cluster: origin}",
    };
    let (process, place) = setup.start(site, origin)?;
    Cache::wait_cached(place.started(), process, origin)
}

/// A filter that answers at once, in V8, which official builds have: each worker has an instance that it keeps.
pub fn wasm(site: &Site, origin: &Origin) -> Result<Cache, Error> {
    find("envoy")?;
    let dir = site.make_dir("envoy-wasm")?;
    let module = build_filter(&dir)?;
    let filter = format!(
        r#"- {{name: envoy.filters.http.wasm, typed_config: {{"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", config: {{name: answer, vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: "{}"}}}}}}}}}}}}"#,
        module.display()
    );
    let setup = Setup {
        name: "Envoy, Proxy-Wasm",
        dir: "envoy-wasm",
        lacks: CONSTANT,
        filter: &filter,
        action: NOWHERE,
    };
    let (process, place) = setup.start(site, origin)?;
    Cache::wait(place.started(), vec![process], BODY).map_err(without_wasm)
}

/// That a build has no WebAssembly is no failure of the benchmark.
fn without_wasm(error: Error) -> Error {
    match error {
        Error::NotReady { log, .. } if WITHOUT_WASM.iter().any(|words| log.contains(words)) => {
            Error::Missing {
                program: "Envoy with WebAssembly".to_owned(),
                remedy: "the one that is installed was built without; `make bench-setup` has one with it",
            }
        }
        other => other,
    }
}

/// Where one was started.
struct Place {
    name: &'static str,
    lacks: &'static str,
    address: SocketAddr,
    dir: PathBuf,
}

impl Place {
    fn started(&self) -> Started<'_> {
        Started {
            name: self.name,
            lacks: self.lacks,
            address: self.address,
            dir: &self.dir,
        }
    }
}

impl Setup<'_> {
    fn start(&self, site: &Site, origin: &Origin) -> Result<(Process, Place), Error> {
        let program = find("envoy")?;
        let dir = site.make_dir(self.dir)?;
        let [address] = free_addresses()?;
        let config = fill(
            include_str!("../../contenders/envoy.yaml"),
            &[
                ("port", address.port().to_string()),
                ("origin_host", origin.address.ip().to_string()),
                ("origin_port", origin.address.port().to_string()),
                ("filter", self.filter.to_owned()),
                ("action", self.action.to_owned()),
            ],
        );
        let file = dir.join("envoy.yaml");
        write(&file, &config)?;
        let process = Process::start("envoy", &dir, line(&program, &file, site.workers))?;
        let place = Place {
            name: self.name,
            lacks: self.lacks,
            address,
            dir,
        };
        Ok((process, place))
    }
}

/// A worker for each processor. Nobody restarts it in place, so it needs no memory in common with another one.
fn line(program: &Path, file: &Path, workers: usize) -> Command {
    let mut line = command(program);
    line.arg("--config-path")
        .arg(file)
        .args(["--concurrency", &workers.to_string()])
        .args(["--log-level", "warning", "--disable-hot-restart"]);
    line
}

/// Compiles the filter into a module of WebAssembly, without a C library: it needs none.
fn build_filter(dir: &Path) -> Result<PathBuf, Error> {
    let source = dir.join("envoy-filter.c");
    write(&source, include_str!("../../contenders/envoy-filter.c"))?;
    let module = dir.join("filter.wasm");
    let mut line = command(find("clang")?);
    line.args(["--target=wasm32", "-O3", "-ffreestanding", "-nostdlib"])
        .args(["-Wl,--no-entry", "-Wl,--strip-all", "-o"])
        .arg(&module)
        .arg(&source);
    process::run(line)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blank_of_the_configuration_is_filled_in() {
        let template = include_str!("../../contenders/envoy.yaml");
        for blank in ["port", "origin_host", "origin_port", "filter", "action"] {
            assert!(template.contains(&format!("{{{blank}}}")), "{blank}");
        }
    }

    /// Where there is clang for WebAssembly: the module has what hosts of version 0.2.1 look for.
    #[test]
    fn the_filter_exports_what_hosts_call() {
        let linker = find("wasm-ld");
        if find("clang").is_err() || linker.is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let module = std::fs::read(build_filter(dir.path()).unwrap()).unwrap();
        assert!(module.starts_with(b"\0asm"));
        for name in [
            "proxy_abi_version_0_2_1",
            "proxy_on_memory_allocate",
            "proxy_on_request_headers",
            "proxy_send_local_response",
            "memory",
            BODY,
        ] {
            let mut places = module.windows(name.len());
            assert!(places.any(|bytes| bytes == name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_build_without_webassembly_is_said_to_be_missing() {
        let error = |log: &str| Error::NotReady {
            name: "envoy".to_owned(),
            waited_s: 60,
            log: log.to_owned(),
        };
        let log = "Failed to create Wasm VM using envoy.wasm.runtime.v8 runtime. Envoy was compiled without support for it";
        assert!(matches!(without_wasm(error(log)), Error::Missing { .. }));
        let other = without_wasm(error("cannot bind"));
        assert!(matches!(other, Error::NotReady { .. }));
    }
}
