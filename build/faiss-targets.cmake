# Settings of FAISS's targets: faiss.cmake includes this file once its project begins.
function(saker_settings)
    set(off_the_search
        AutoTune.cpp IVFlib.cpp MatrixStats.cpp MetaIndexes.cpp clone_index.cpp index_factory.cpp
        IndexBinary.cpp IndexBinaryFlat.cpp IndexBinaryFromFloat.cpp IndexBinaryHNSW.cpp IndexBinaryHash.cpp IndexBinaryIVF.cpp
        IndexNeuralNetCodec.cpp IndexReplicas.cpp IndexShards.cpp IndexShardsIVF.cpp
        impl/PolysemousTraining.cpp impl/index_read.cpp impl/index_write.cpp impl/kmeans1d.cpp
        invlists/InvertedListsIOHook.cpp invlists/OnDiskInvertedLists.cpp
        utils/NeuralNet.cpp)
    list(TRANSFORM off_the_search PREPEND "${PROJECT_SOURCE_DIR}/faiss/")
    set_source_files_properties(${off_the_search} TARGET_DIRECTORY faiss PROPERTIES COMPILE_OPTIONS "-O1")
    target_precompile_headers(faiss PRIVATE
        <algorithm> <cmath> <cstdio> <cstring> <functional> <map> <memory> <mutex> <numeric> <queue> <random> <set> <sstream>
        <stdexcept> <string> <typeinfo> <unordered_map> <unordered_set> <vector> <omp.h>)
    if(TARGET faiss_c)
        target_compile_options(faiss_c PRIVATE -O1)
    endif()
endfunction()
# After the targets exist.
cmake_language(DEFER CALL saker_settings)
