//! faiss_retrieval
