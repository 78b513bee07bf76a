//! A component's way into service: verify → compile → link → self-test. It reads straight down
//! [`Admission::admit`].
//!
//! Each stage takes what the one before made, so none can be left out, and returns all that it finds
//! wrong. The sandbox in `guest` knows nothing of it: the stages say what its errors mean.
//!
//! - [`oci`]: what a component is as an OCI image;
//! - [`signature`]: whose components are taken ([`Upload`] → `Verified`);
//! - `secrets`: what its configuration refers to;
//! - `compile`: that it is a component (→ `Compiled`);
//! - `link`: that it imports and exports what it may and must (→ `Linked`);
//! - `samples`: what a component is to decide about;
//! - `keys`: that what it keeps is for whoever gets it;
//! - `self_test`: that it decides, and that (→ [`Admitted`]);
//! - `rejection`: all that can be wrong, in words for the person who wrote it.

pub mod oci;
pub mod signature;
pub(crate) mod secrets;
pub(crate) mod rejection;
mod compile;
mod link;
mod samples;
mod keys;
mod self_test;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use rejection::{Problem, Rejection, Tests};
pub use secrets::{SecretError, Secrets};
pub use self_test::Admitted;
pub use signature::{KeyError, KeyKind, Signatory, Trust, Untrusted, Upload, signature_path};

use self::compile::compile;
use self::link::{Linked, link};
use self::self_test::self_test;
use self::signature::verify;
use crate::DEFAULT_POLICY;
use crate::evaluate::input::DecisionInput;
use crate::guest::config::Config;
use crate::guest::engine::Engine;
use crate::guest::thread::yield_to_others;
use crate::guest::version::Version;
use crate::limits;
use crate::measured::Measured;

impl From<Engine> for Admission {
    fn from(engine: Engine) -> Self {
        Self::new(engine)
    }
}

/// Who has something checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedBy {
    /// Somebody who may be told to come again, while another one is checked.
    Operator,
    /// The gateway by itself, of what was in service before: it has compiled code, mostly, and takes a moment.
    Gateway,
}

/// Is raised while the gateway has something checked by itself.
struct ByItself<'a>(&'a AtomicBool);

impl<'a> ByItself<'a> {
    fn begin(raised: &'a AtomicBool) -> Self {
        raised.store(true, Ordering::Relaxed);
        Self(raised)
    }
}

impl Drop for ByItself<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Admits components into service, or says what keeps them from it.
pub struct Admission {
    engine: Engine,
    trust: Option<Trust>,
    secrets: Secrets,
    /// Where components are tested, and compiled where there is no process for it; the thread that asks
    /// where there is none. Locked meanwhile: one component at a time is enough for a machine.
    background: Option<Mutex<ThreadPool>>,
    /// Whether the gateway has something checked by itself. Nobody is sent away for that.
    by_itself: AtomicBool,
}

impl Admission {
    /// Admits components of whatever origin, on the thread that asks.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            trust: None,
            secrets: Secrets::default(),
            background: None,
            by_itself: AtomicBool::new(false),
        }
    }

    /// Lets configurations refer to these secrets.
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Admits no component from now on that `trust` does not cover.
    pub fn trusting(self, trust: Option<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// Admits one component at a time from now on, on threads that all others go before: for a
    /// gateway that serves meanwhile.
    ///
    /// # Errors
    /// Where the machine has no more threads.
    pub(crate) fn in_background(self) -> io::Result<Self> {
        // wasmtime compiles on the pool that it is called on.
        let threads = ThreadPoolBuilder::new()
            .thread_name(|index| format!("policy-admit-{index}"))
            .start_handler(|_| yield_to_others())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            background: Some(Mutex::new(threads)),
            ..self
        })
    }

    /// Whether components of this origin are taken.
    ///
    /// # Errors
    /// Where nobody who is trusted has signed it.
    pub(crate) fn check_trust(&self, upload: Upload<'_>) -> Result<(), Rejection> {
        let verified = verify(upload, self.trust.as_ref());
        verified.inspect_err(|_| self.measured().checked("untrusted"))?;
        Ok(())
    }

    /// A component's whole way into service. `recent` is what was to be decided lately, which it
    /// must be able to decide as well.
    ///
    /// Takes a second of processor time for each few megabytes: not for a thread that serves.
    ///
    /// # Errors
    /// All that one stage finds wrong; the stages after it do not see the component.
    pub fn admit<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        recent: &[DecisionInput],
    ) -> Result<Admitted, Rejection> {
        let (upload, trust) = (upload.into(), self.trust.as_ref());
        self.counted(self.admit_uncounted(upload, trust, recent, AskedBy::Operator))
    }

    /// The same of what was in service before. What was to be decided lately is no test of it: clients choose that.
    /// The built-in one needs no signature.
    pub(crate) fn admit_again(
        &self,
        upload: Upload<'_>,
        by: AskedBy,
    ) -> Result<Admitted, Rejection> {
        let is_built_in = upload.component == DEFAULT_POLICY;
        let trust = self.trust.as_ref().filter(|_| !is_built_in);
        self.counted(self.admit_uncounted(upload, trust, &[], by))
    }

    fn admit_uncounted(
        &self,
        upload: Upload<'_>,
        trust: Option<&Trust>,
        recent: &[DecisionInput],
        by: AskedBy,
    ) -> Result<Admitted, Rejection> {
        let verified = verify(upload, trust)?;
        let config = self.resolve(upload.config)?;
        let admit = || {
            let compiled = compile(&self.engine, verified)?;
            let linked = link(&self.engine, compiled)?;
            self_test(linked, config, recent)
        };
        self.in_turn(by, admit)
    }

    /// The way of a version's component with another configuration: it is compiled and linked already.
    ///
    /// # Errors
    /// All that the configuration, and what the component does with it, has wrong.
    pub(crate) fn reconfigure(
        &self,
        version: &Version,
        config: &[u8],
        recent: &[DecisionInput],
        by: AskedBy,
    ) -> Result<Admitted, Rejection> {
        let config = self.resolve(config)?;
        self.counted(self.in_turn(by, || self_test(Linked::of(version), config, recent)))
    }

    fn counted(&self, admitted: Result<Admitted, Rejection>) -> Result<Admitted, Rejection> {
        self.measured().checked(match &admitted {
            Ok(_) => "admitted",
            Err(Rejection::Untrusted(_)) => "untrusted",
            Err(Rejection::Unfit(_)) => "unfit",
            Err(Rejection::Busy) => "busy",
            Err(Rejection::NotChecked(_)) => "not_checked",
        });
        admitted
    }

    /// What was admitted so far.
    pub(crate) fn measured(&self) -> Arc<Measured> {
        self.engine.measured()
    }

    /// Whether a version is of that configuration, and what this refers to is as it was.
    ///
    /// # Errors
    /// Where it refers to what is not there.
    pub(crate) fn is_configured(
        &self,
        version: &Version,
        config: &[u8],
    ) -> Result<bool, Rejection> {
        Ok(self.resolve(config)?.is_same(&version.config))
    }

    fn resolve(&self, config: &[u8]) -> Result<Config, Problem> {
        if config.len() > limits::CONFIG_BYTES_MAX {
            return Err(Problem::ConfigTooLarge(config.len()));
        }
        let resolved = self.secrets.resolve(config);
        resolved.map_err(|error| Problem::Secret(error.to_string()))
    }

    /// One component at a time, where clients are served meanwhile.
    fn in_turn(
        &self,
        by: AskedBy,
        admit: impl FnOnce() -> Result<Admitted, Rejection> + Send,
    ) -> Result<Admitted, Rejection> {
        let Some(background) = &self.background else {
            return admit();
        };
        let threads = match background.try_lock() {
            Ok(threads) => threads,
            Err(TryLockError::Poisoned(threads)) => threads.into_inner(),
            Err(TryLockError::WouldBlock) if self.by_itself.load(Ordering::Relaxed) => {
                background.lock().unwrap_or_else(PoisonError::into_inner)
            }
            Err(TryLockError::WouldBlock) => return Err(Rejection::Busy),
        };
        let by_itself = match by {
            AskedBy::Operator => None,
            AskedBy::Gateway => Some(ByItself::begin(&self.by_itself)),
        };
        let admitted = threads.install(admit);
        drop(by_itself);
        admitted
    }
}
