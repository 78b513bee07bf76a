//! What an instance may take of memory.

use wasmtime::ResourceLimiter;

use crate::limits;

/// What an instance may still take. Counts all its memories and tables together: wasmtime's own
/// `StoreLimits` are for each, and a component can have a hundred.
pub(super) struct GuestBudget {
    memory_bytes: usize,
    table_elements: usize,
}

impl GuestBudget {
    pub(super) fn new() -> Self {
        Self {
            memory_bytes: limits::MEMORY_BYTES_MAX,
            table_elements: limits::TABLE_ELEMENTS_MAX,
        }
    }
}

/// Whether something may grow; if so, takes that out of what is left.
fn grow(left: &mut usize, current: usize, desired: usize, maximum: Option<usize>) -> bool {
    let wanted = desired.saturating_sub(current);
    let allowed = maximum.is_none_or(|maximum| desired <= maximum) && wanted <= *left;
    if allowed {
        *left -= wanted;
    }
    allowed
}

impl ResourceLimiter for GuestBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.memory_bytes, current, desired, maximum))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.table_elements, current, desired, maximum))
    }

    fn instances(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::CORE_INSTANCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_all_tables_of_an_instance_count_together() {
        let mut budget = GuestBudget::new();
        let half = limits::MEMORY_BYTES_MAX / 2;
        assert!(budget.memory_growing(0, half, None).unwrap(), "one memory");
        assert!(budget.memory_growing(0, half, None).unwrap(), "another");
        assert!(!budget.memory_growing(0, 1, None).unwrap(), "a third");
        assert!(!budget.memory_growing(half, half + 1, None).unwrap());
        let all = limits::TABLE_ELEMENTS_MAX;
        assert!(!budget.table_growing(0, all, Some(all - 1)).unwrap());
        assert!(budget.table_growing(0, all, None).unwrap());
        assert!(!budget.table_growing(0, 1, None).unwrap());
    }
}
