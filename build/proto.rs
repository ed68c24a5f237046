//! Compiles the gRPC interfaces of `proto/` into `OUT_DIR`, without a `protoc` on the machine.

use std::error::Error;

/// Compiles every interface that the binary speaks. Runtimes and stores are only called; of the interfaces of plugins
/// both sides are made: the kubelet serves one itself, and tests play the plugin.
pub fn compile() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/cri.proto", "proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        // Ordered maps: what is sent, logged and compared does not depend on hashing.
        .btree_map(".")
        // Values of the store are shared, not copied.
        .bytes(".etcdserverpb")
        // Passwords of registries must not reach a log through `Debug`.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(files)?;
    let plugins = ["csi", "pluginregistration", "deviceplugin", "podresources"];
    let plugins = plugins.map(|name| format!("proto/{name}.proto"));
    tonic_prost_build::configure()
        .btree_map(".")
        // Credentials of volumes must not reach a log through `Debug`.
        .skip_debug([
            "csi.v1.NodeStageVolumeRequest",
            "csi.v1.NodePublishVolumeRequest",
            "csi.v1.NodeExpandVolumeRequest",
        ])
        .compile_fds(protox::compile(plugins, ["proto"])?)?;
    Ok(())
}
