"""Arrays at rest: HDF5 files that many processes map at once. numpy and h5py only, never torch."""
