/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   A model file holds machine code, which runs with all rights of the user. So it is read
   only if nobody but this user and root can have written it.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_TRUST_H
#define LMP_NBODY_TRUST_H

#include <string>

namespace LAMMPS_NS {
namespace NBodyTrust {

  // the content of a file, or no more than its first bytes if it does not begin as it should.
  // Returns an empty string, or a sentence that says what is wrong

  std::string read(const std::string &path, const std::string &beginning, std::string &content);

}    // namespace NBodyTrust
}    // namespace LAMMPS_NS

#endif
