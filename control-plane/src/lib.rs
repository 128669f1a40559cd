pub mod policy_index;
