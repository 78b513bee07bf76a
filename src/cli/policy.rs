//! Flags of `bazaar policy` and its commands.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand, ValueEnum};
use frontend_policy::replay::Mask;
use http::HeaderName;

use super::admin::Admin;
use super::config::{Config, Secrets};
use super::rollout::Rollout;
use super::values::probability;

/// The commands of `bazaar policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Make a directory with a policy of its own, ready to be built
    New {
        /// A directory that is not there yet; its name becomes the policy's
        dir: PathBuf,
        /// The language that it is written in
        #[arg(
            long,
            env = "BAZAAR_LANG",
            value_name = "LANGUAGE",
            value_enum,
            default_value_t
        )]
        lang: Language,
    },
    /// Print the world that policies are of, in WIT
    Wit {
        /// Which version of it
        #[arg(
            long,
            env = "BAZAAR_WORLD",
            value_name = "VERSION",
            value_enum,
            default_value_t
        )]
        world: World,
    },
    /// Build a policy whenever its source is saved, try it out in a running gateway, and show where
    /// it decides differently
    Dev(Dev),
    /// Build the policy in a directory and print the component's path
    Build {
        /// The directory of the policy's Cargo.toml, or of an executable `build` that prints the path
        dir: PathBuf,
        /// Build this example of the crate instead of its library
        #[arg(long, env = "BAZAAR_EXAMPLE", value_name = "NAME")]
        example: Option<String>,
        /// Where to keep what was built for the next time [default: DIR/target/guest]
        #[arg(long, env = "BAZAAR_TARGET_DIR", value_name = "DIR")]
        target_dir: Option<PathBuf>,
    },
    /// Check a component as a gateway would before it activates it
    Check {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Measure what components cost on this machine: activation, a decision, an instance's memory
    Measure {
        /// The components, or images of them
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Make a key to sign policies with, and print its public half
    Keygen {
        /// Where the secret key goes; it must not be there yet
        file: PathBuf,
        /// Which signatures it makes
        #[arg(
            long,
            env = "BAZAAR_KIND",
            value_name = "KIND",
            value_enum,
            default_value_t
        )]
        kind: KeyKind,
    },
    /// Sign a component: the signature goes beside it, into FILE.sig. An image has it inside, as cosign does
    Sign {
        /// The component, or an image of it in a tar
        file: PathBuf,
        /// The secret key: as `keygen` makes it, or one in PEM (PKCS #8)
        #[arg(long, env = "BAZAAR_KEY", value_name = "FILE")]
        key: PathBuf,
    },
    /// Make an OCI image of a component, in a file: what registries and their tools take
    Pack(Pack),
    /// Activate a component in a running gateway, with FILE.sig where it is there
    Push {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        admin: Admin,
    },
    /// Give the active policy of a running gateway another configuration
    Configure {
        /// The configuration; an empty file for none
        config: PathBuf,
        /// Try it out as a shadow on this share of the decisions, instead of making it active
        #[arg(long, env = "BAZAAR_SHADOW", value_name = "SHARE", value_parser = probability, conflicts_with = "canary")]
        shadow: Option<f64>,
        /// Try it out as a canary on this share of the clients, instead of making it active
        #[arg(long, env = "BAZAAR_CANARY", value_name = "SHARE", value_parser = probability)]
        canary: Option<f64>,
        /// Roll it out by this plan, instead of making it active
        #[arg(long, env = "BAZAAR_PLAN", value_name = "FILE", conflicts_with_all = ["shadow", "canary"])]
        plan: Option<PathBuf>,
        /// Take the place of this candidate, whoever put it there: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_REPLACE", value_name = "DIGEST")]
        replace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Put a share of the live decisions to a component as well, without effect
    Shadow {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        admin: Admin,
    },
    /// Let a component decide for a share of the clients
    Canary {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        /// Only for such requests: header:NAME=VALUE, cookie:NAME=VALUE, path:/PATH or network:CIDR; once for
        /// each condition, all of which must be met
        #[arg(long, env = "BAZAAR_ONLY", value_name = "CONDITION")]
        only: Vec<String>,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        admin: Admin,
    },
    /// Have a component take the active one's place step by step, each by evidence
    Rollout(Rollout),
    /// Show where the candidate decided differently, as JSON
    Differences {
        #[command(flatten)]
        admin: Admin,
    },
    /// Record live decisions of a running gateway, with all that they depend on
    Record(Record),
    /// Have a policy make recorded decisions again; exit with 1 where they come out differently
    Replay {
        /// The recording
        file: PathBuf,
        /// The component; the built-in one where it is not given
        #[arg(long, env = "BAZAAR_POLICY", value_name = "FILE")]
        policy: Option<PathBuf>,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
        #[command(flatten)]
        minimize: Minimize,
    },
    /// Have a policy make recorded decisions again, and show each that is not as it was; exit with 1 where
    /// there is one
    Test(Test),
    /// Make the candidate the active policy
    Promote {
        /// Only if this is the candidate: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_DIGEST", value_name = "DIGEST")]
        digest: Option<String>,
        /// Only if this is the active policy: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_ACTIVE", value_name = "DIGEST")]
        active: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Drop the candidate
    Drop {
        /// Only if this is the candidate: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_DIGEST", value_name = "DIGEST")]
        digest: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Make the last good policy before this one the active one again
    Rollback {
        /// Only if it goes back to this one: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_DIGEST", value_name = "DIGEST")]
        digest: Option<String>,
        /// Only if this is the active policy: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_ACTIVE", value_name = "DIGEST")]
        active: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Make a policy active again that a running gateway keeps: the last 32 that were active
    Activate {
        /// Its digest, or the first 8 characters of it or more
        digest: String,
        /// Only if this is the active policy: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_ACTIVE", value_name = "DIGEST")]
        active: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// List the policies of a running gateway
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Show how the policy of a running gateway was changed: by whom, why, and by what failure
    Log {
        #[command(flatten)]
        admin: Admin,
        /// How many changes, the latest; a gateway with a data directory keeps some thousands [default: 20]
        #[arg(long, env = "BAZAAR_LOG_LIMIT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: Option<u32>,
        /// Print what the gateway answered, as JSON
        #[arg(long, env = "BAZAAR_LOG_JSON", value_parser = BoolishValueParser::new())]
        json: bool,
    },
}

/// Flags of `bazaar policy record`.
#[derive(Debug, Args)]
pub struct Record {
    /// How long to record, in seconds
    #[arg(long, env = "BAZAAR_SECONDS", value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Where to write the recording
    #[arg(short, long, env = "BAZAAR_OUTPUT", value_name = "FILE")]
    pub output: PathBuf,
    /// A header to record, of those that the policy asks to see; once for each of them. Also
    /// `set-cookie`, of responses [default: all but those that carry credentials]
    #[arg(
        long = "header",
        env = "BAZAAR_RECORD_HEADERS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub headers: Vec<HeaderName>,
    #[command(flatten)]
    pub admin: Admin,
}

/// Flags of `bazaar policy test`.
#[derive(Debug, Args)]
pub struct Test {
    /// The recordings
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// The component; the built-in one where it is not given
    #[arg(long, env = "BAZAAR_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub secrets: Secrets,
    /// Leave a field out, such as `headers.etag` or `body.data.price`, or what an expression matches in it
    #[arg(long = "mask", env = "BAZAAR_MASK", value_name = "FIELD[=REGEX]")]
    pub masks: Vec<Mask>,
    /// Print the report as JSON
    #[arg(long, env = "BAZAAR_TEST_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    pub minimize: Minimize,
}

/// Whether differences are cut down to the request that shows them.
#[derive(Debug, Args)]
pub struct Minimize {
    /// For each kind of difference, look for the smallest request that still shows it
    #[arg(long, env = "BAZAAR_MINIMIZE", value_parser = BoolishValueParser::new())]
    pub minimize: bool,
    /// The component that made the recording, to compare with; the built-in one where it is not given
    #[arg(
        long,
        env = "BAZAAR_BASELINE",
        value_name = "FILE",
        requires = "minimize"
    )]
    pub baseline: Option<PathBuf>,
}

/// A language that policies are written in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    #[default]
    Rust,
    #[value(alias = "javascript")]
    Js,
    Python,
    C,
}

/// A version of the world.
#[derive(Debug, Default, Clone, Copy, ValueEnum)]
pub enum World {
    #[default]
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.1")]
    V1_1,
    #[value(name = "1.0")]
    V1_0,
}

/// Which signatures a key makes.
#[derive(Debug, Default, Clone, Copy, ValueEnum)]
pub enum KeyKind {
    /// RFC 8032
    #[default]
    Ed25519,
    /// ECDSA with P-256, in PEM: what cosign takes, too
    EcdsaP256,
}

impl From<KeyKind> for frontend_policy::admission::KeyKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Ed25519 => Self::Ed25519,
            KeyKind::EcdsaP256 => Self::EcdsaP256,
        }
    }
}

/// Flags of `bazaar policy pack`.
#[derive(Debug, Args)]
pub struct Pack {
    /// The component
    pub file: PathBuf,
    /// Where the image goes: a tar of an OCI image layout
    #[arg(short, long, env = "BAZAAR_OUTPUT", value_name = "FILE")]
    pub output: PathBuf,
    /// The policy's configuration, which goes with it
    #[arg(long, env = "BAZAAR_POLICY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A detached signature of the component, which goes with it [default: FILE.sig where it is there]
    #[arg(long, env = "BAZAAR_SIGNATURE", value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// A secret key to sign the image with, as `cosign sign` does
    #[arg(long, env = "BAZAAR_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Flags of `bazaar policy dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// The directory of the policy's Cargo.toml, or of an executable `build` that prints the path
    pub dir: PathBuf,
    /// Build this example of the crate instead of its library
    #[arg(long, env = "BAZAAR_EXAMPLE", value_name = "NAME")]
    pub example: Option<String>,
    /// Where to keep what was built for the next time [default: DIR/target/guest]
    #[arg(long, env = "BAZAAR_TARGET_DIR", value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// Share of the live decisions that are put to it as well: more than 0, at most 1
    #[arg(long, env = "BAZAAR_SHARE", value_name = "SHARE", default_value_t = 1.0, value_parser = probability)]
    pub share: f64,
    /// Make it the active policy at once, instead of a candidate without effect
    #[arg(long, env = "BAZAAR_DEV_ACTIVE", value_parser = BoolishValueParser::new(), conflicts_with = "share")]
    pub active: bool,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub admin: Admin,
}

/// How much of the traffic a candidate is tried on.
#[derive(Debug, Args)]
pub struct Trial {
    /// Share of the decisions, or of the clients: more than 0, at most 1
    #[arg(long, env = "BAZAAR_SHARE", value_name = "SHARE", default_value_t = 0.1, value_parser = probability)]
    pub share: f64,
    /// Take the place of this candidate, whoever put it there: its digest, or the beginning of it
    #[arg(long, env = "BAZAAR_REPLACE", value_name = "DIGEST")]
    pub replace: Option<String>,
    #[command(flatten)]
    pub config: Config,
}
