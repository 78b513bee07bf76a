//! The instances of a thread.

use std::cell::RefCell;

use super::failure::Failure;
use super::instance::Instance;
use super::version::Version;
use super::written::Written;

/// Instances that a thread keeps: of the active version, the previous one, the candidate, and
/// one to spare.
const INSTANCES_PER_THREAD_MAX: usize = 4;

struct Pool {
    /// The publication that it was last trimmed for.
    generation: u64,
    /// Most recently used last. Boxed, as each is moved out and in again for every decision.
    instances: Vec<(u64, Box<Instance>)>,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { generation: 0, instances: Vec::new() }) };
}

/// Calls this thread's instance of a version, making one where there is none. An instance
/// goes back to the pool only after a success.
pub(crate) fn with_instance<T>(
    generation: u64,
    version: &Version,
    call: impl FnOnce(&mut Instance) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let pooled = POOL.with_borrow_mut(|pool| pool.take(generation, version.id));
    let mut instance = match pooled {
        Some(instance) => instance,
        None => Box::new(version.start_instance()?),
    };
    let mut result = call(&mut instance);
    if let Some(output) = instance.take_output() {
        // It may have secrets of its configuration.
        let output = output.without(version.config.secrets());
        log_output(version, &output);
        result = result.map_err(|failure| failure.with_output(output));
    }
    if result.is_ok() && !instance.is_worn() {
        POOL.with_borrow_mut(|pool| pool.put(version.id, instance));
    }
    result
}

impl Pool {
    fn take(&mut self, generation: u64, version: u64) -> Option<Box<Instance>> {
        if generation > self.generation {
            // Versions came and went: let go of all but the one asked for.
            self.generation = generation;
            self.instances.retain(|(id, _)| *id == version);
        }
        let place = self.instances.iter().position(|(id, _)| *id == version)?;
        Some(self.instances.remove(place).1)
    }

    fn put(&mut self, version: u64, instance: Box<Instance>) {
        if self.instances.len() == INSTANCES_PER_THREAD_MAX {
            self.instances.remove(0);
        }
        self.instances.push((version, instance));
    }
}

/// Output is for the author of a policy who looks at the log, so it is at debug level.
fn log_output(version: &Version, output: &Written) {
    let Written { text, dropped } = output;
    tracing::debug!(policy = %version, dropped, output = %text.trim_end().escape_debug(), "the policy wrote");
}
