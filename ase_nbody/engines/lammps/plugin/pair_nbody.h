/* -*- c++ -*- ----------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   pair_style nbody: the hierarchy of atoms, environments and clusters, level by level. States
   of ghost parts come by forward communication, derivatives with respect to them go back by
   reverse communication. So ghosts reach as far as the largest radius, and no part is
   evaluated twice.
------------------------------------------------------------------------- */

#ifndef LMP_PAIR_NBODY_H
#define LMP_PAIR_NBODY_H

#include "pair.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class NBodyBlock;
class NBodyNetwork;
class NBodyStates;

class PairNBody : public Pair {
 public:
  PairNBody(class LAMMPS *);
  ~PairNBody() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  double memory_usage() override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

  // for compute nbody/spread: forces (x, y, z) of each member on own atoms and ghosts, which
  // are not summed over ghosts yet, and the step that they belong to

  int members() const;
  const std::vector<double> &member_forces() const { return fmember; }
  bigint member_step() const { return laststep; }

 protected:
  std::unique_ptr<NBodyNetwork> network;
  std::vector<int> speciesof;                // by atom type, -1 for NULL
  std::vector<std::vector<int>> parts;       // by level: own atoms that are centers of parts
  std::vector<std::vector<int>> rowof;       // by level: row of each atom's part in states, or -1
  std::vector<int> nrows;                    // by level
  std::vector<NBodyStates> states, slopes;   // by level but the last: psi and dE/dpsi
  std::unique_ptr<NBodyBlock> block;
  int commlevel;                             // level whose rows are communicated
  std::vector<double> fmember;
  bigint laststep;

  virtual void allocate();
  void read_file(const std::string &);
  void check_settings();
  void find_parts();
  void climb(int);
  void descend(int);
  void send_states(int);
  void return_slopes(int);
  void build_block(int, const std::vector<int> &, int);
  void tally_energies(const class NBodyResult &);
  void tally_forces(const class NBodyResult &, int);
  void refuse(const char *);
};

}    // namespace LAMMPS_NS

#endif
