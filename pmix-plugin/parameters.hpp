// The parameters of Ghost a user can set (mpirun --mca ghost_... , OMPI_MCA_ghost_...): one table,
// registered with Open MPI by the schizo component and printed by `ghost params`.
#pragma once

#include <span>

namespace ghost::plugin {

struct Parameter {
    const char* name;      // as after --mca
    const char* fallback;  // default, as text
    const char* meaning;
};

// In the order they are listed.
std::span<const Parameter> parameters();

}  // namespace ghost::plugin
