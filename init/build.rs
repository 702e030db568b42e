//! Makes the release binary smaller: each node pulls every byte of it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // Profile `init`, by its optimisation level: other profiles unwind, and need what is left out here.
    if var("CARGO_CFG_TARGET_ENV") == "musl" && var("OPT_LEVEL") == "z" {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}/link.ld", var("CARGO_MANIFEST_DIR"));
        // The table of relocations of a static binary at any address shrinks from 76 KiB to 1; musl reads the
        // packed form since 1.2.4, and Rust ships a later one.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
