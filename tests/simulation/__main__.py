from tests.simulation.world import simulate
import sys
simulate(int(sys.argv[1]), trace=True)
