# How FAISS is compiled: read by CMake as a toolchain file, which .cargo/config.toml names, since the package's own script takes
# no other settings. FAISS is a third of what serving compiles.
#
# What a search runs keeps the -O3 of a release. What only reads, writes, copies or describes an index, the C interface, and the kinds of
# index that its C interface cannot reach get -O1. The standard headers, which all 118 files include, are parsed once.
set(CMAKE_PROJECT_faiss_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/faiss-targets.cmake")
