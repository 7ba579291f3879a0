{
  # A shim for tools that insist on node-gyp: CMakeLists.txt lists the sources and cmake-js drives it.
  "targets": [{
    "target_name": "lutra",
    "type": "none",
    "actions": [{
      "action_name": "cmake_js",
      "message": "cmake-js -> <(PRODUCT_DIR)/lutra.node",
      "inputs": ["CMakeLists.txt"],
      "outputs": ["<(INTERMEDIATE_DIR)/always-run"],
      "action": [
        "node", "<!(node -p \"require.resolve('cmake-js/bin/cmake-js')\")", "build",
        "--out=<(module_root_dir)/build/cmake",
        "--arch=<(target_arch)",
        "--CDCMAKE_LIBRARY_OUTPUT_DIRECTORY=<(PRODUCT_DIR)",
        "--CDLUTRA_TESTS=OFF"
      ]
    }]
  }]
}
