//! Gives the linker the order of functions of a program that is shipped, see layout/sidecar.ld:
//! it is worth 4 MB of each sidecar's resident memory. Debug builds are linked as always.

use std::{env, path::Path};

/// Linkers that read no such file. The program is the same without it, but for its memory.
const WITHOUT_SCRIPTS: [&str; 3] = ["mold", "wild", "gold"];

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script what it builds so"
)]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name| env::var(name).unwrap_or_default();
    let linker = set("RUSTC_LINKER") + &set("CARGO_ENCODED_RUSTFLAGS");
    let reads_scripts = !WITHOUT_SCRIPTS.iter().any(|name| linker.contains(name));
    if set("PROFILE") == "release" && set("CARGO_CFG_TARGET_OS") == "linux" && reads_scripts {
        let order = Path::new(&set("CARGO_MANIFEST_DIR")).join("layout/sidecar.ld");
        println!("cargo::rerun-if-changed=layout/sidecar.ld");
        println!(
            "cargo::rustc-link-arg-bin=mesh-lite=-Wl,-T,{}",
            order.display()
        );
    }
}
