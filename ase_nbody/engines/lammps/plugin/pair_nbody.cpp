/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   What the input asks of pair_style nbody, and what LAMMPS asks of it before a run.
------------------------------------------------------------------------- */

#include "pair_nbody.h"

#include "nbody_block.h"
#include "nbody_network.h"
#include "nbody_states.h"
#include "nbody_torch.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

PairNBody::PairNBody(LAMMPS *lmp) : Pair(lmp), commlevel(0), laststep(-1)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial is summed over edges
  centroidstressflag = CENTROID_NOTAVAIL;
  unit_convert_flag = 0;

  try {
    NBodyTorch::get();    // says before anything else that PyTorch is not where it was
  } catch (std::exception &e) {
    error->one(FLERR, "Pair style nbody: {}", e.what());
  }
}

/* ---------------------------------------------------------------------- */

PairNBody::~PairNBody()
{
  if (copymode) return;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

/* ---------------------------------------------------------------------- */

void PairNBody::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  map = new int[n];
}

/* ---------------------------------------------------------------------- */

void PairNBody::settings(int narg, char ** /*arg*/)
{
  if (narg != 0) error->all(FLERR, "Pair style nbody takes no arguments");
}

/* ---------------------------------------------------------------------- */

void PairNBody::coeff(int narg, char **arg)
{
  if (narg < 4)
    error->all(FLERR,
               "Pair style nbody needs pair_coeff * * FILE and one element, or NULL, for each "
               "atom type");
  if (!allocated) allocate();

  // a program that catches an error may go on: without a model until all of this has succeeded

  network.reset();

  // the elements of the atom types, counted in the order of the model file

  map_element2type(narg - 3, arg + 3);
  read_file(arg[2]);
  const auto &species = network->species;
  speciesof.assign(atom->ntypes + 1, -1);
  for (int itype = 1; itype <= atom->ntypes; itype++) {
    if (map[itype] < 0) continue;
    const std::string element = elements[map[itype]];
    const auto found = std::find(species.begin(), species.end(), element);
    if (found == species.end()) {
      std::string known;
      for (const auto &one : species) known += " " + one;
      network.reset();
      error->all(FLERR, "Element {} in pair_coeff is unknown to model file {}, which has{}",
                 element, arg[2], known);
    }
    speciesof[itype] = (int) (found - species.begin());
  }
}

/* ---------------------------------------------------------------------- */

void PairNBody::read_file(const std::string &path)
{
  NBodyFile file;
  const std::string fault = file.read(path, world);
  if (!fault.empty()) error->all(FLERR, "{}", fault);
  if (file.torch != NBODY_TORCH)
    error->all(FLERR,
               "Model file {} was exported with PyTorch {}, but this plugin was built with {}: "
               "say \"nbody lammps export\" and \"nbody lammps build\" with the same PyTorch",
               path, file.torch, NBODY_TORCH);

  int right = NBodyTorch::get().get_cpu_capability() == file.capability, all_right;
  MPI_Allreduce(&right, &all_right, 1, MPI_INT, MPI_MIN, world);
  if (!all_right)
    error->all(FLERR,
               "Model file {} was exported for processors with {}, which not all ranks have "
               "(rank 0 has {}): say \"nbody lammps export\" on a node like those of this run",
               path, file.capability, NBodyTorch::get().get_cpu_capability());

  std::string problem;
  try {
    network.reset(new NBodyNetwork(std::move(file)));
  } catch (std::exception &e) {
    problem = e.what();
  }
  int failed = !problem.empty(), any_failed;
  MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, world);
  if (any_failed)
    error->all(FLERR, "The machine code in {} cannot be loaded: {}", path,
               failed ? problem : "it fails on another rank");

  states.clear();
  for (int n = 0; n < network->nlevels - 1; n++) {
    const auto &level = network->levels[n];
    states.emplace_back(level.components, level.channels, network->is_double);
  }
  slopes = states;
  comm_forward = comm_reverse = 0;
  for (const auto &one : states) comm_forward = std::max(comm_forward, one.doubles());
  comm_reverse = comm_forward;
  block.reset(new NBodyBlock(network->is_double));
  centroidstressflag = network->nlevels == 1 ? CENTROID_AVAIL : CENTROID_NOTAVAIL;
}

/* ---------------------------------------------------------------------- */

void PairNBody::init_style()
{
  if (!network)
    error->all(FLERR, "Pair style nbody has no model, because its last pair_coeff was refused");
  check_settings();
  neighbor->add_request(this, NeighConst::REQ_FULL);

  // hybrid styles ask for these sizes before they are known

  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
}

/* ---------------------------------------------------------------------- */

void PairNBody::check_settings()
{
  if (strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "Pair style nbody works in eV and Angstrom: say \"units metal\", not {}",
               update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "Pair style nbody needs \"newton on\"");
  if (network->nlevels > 1 && !modify->get_compute_by_style("heat/flux").empty())
    error->all(FLERR,
               "The heat flux is known for N-body models of one level only, and this one has {}",
               network->nlevels);

  // such neighbors are not even in the neighbor list

  if (atom->molecular != Atom::ATOMIC && atom->nbonds > 0)
    for (int k = 1; k <= 3; k++)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR,
                   "Pair style nbody needs all neighbors, bonded ones too: say "
                   "\"special_bonds lj/coul 1.0 1.0 1.0\"");
  if (neighbor->exclude && comm->me == 0)
    error->warning(FLERR, "Pair style nbody does not see pairs that neigh_modify excludes");
}

/* ---------------------------------------------------------------------- */

double PairNBody::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  return network->cutoff;
}

/* ---------------------------------------------------------------------- */

int PairNBody::members() const
{
  return network ? network->members : 0;
}

/* ---------------------------------------------------------------------- */

double PairNBody::memory_usage()
{
  double bytes = Pair::memory_usage();
  if (network) bytes += network->memory_usage();
  for (const auto &one : states) bytes += one.memory_usage();
  for (const auto &one : slopes) bytes += one.memory_usage();
  for (const auto &one : rowof) bytes += (double) one.capacity() * sizeof(int);
  bytes += (double) fmember.capacity() * sizeof(double);
  return bytes;
}
