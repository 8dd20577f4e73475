// Runs load_run.groovy against a double of those parts of QuPath's interface that it uses, and says what became of
// the project as JSON. Arguments: the script, a project as JSON, 'open' or 'closed' for the first image, version.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper

def here = new File(getClass().protectionDomain.codeSource.location.toURI()).parentFile
def loader = new GroovyClassLoader(getClass().classLoader)
new File(here, 'classes').listFiles().sort { it.name }.each { loader.parseClass(it) }
def project = loader.loadClass('qupath.lib.projects.Project').getConstructor().newInstance()
new JsonSlurper().parse(new File(args[1])).each { project.add(it.name, it.uri, it.readable, args[3]) }
loader.loadClass('qupath.lib.scripting.QP').current = project
if (args[2] == 'open') {
    loader.loadClass('qupath.lib.gui.QuPathGUI').show(project)
}
def said = new StringWriter()
def shell = new GroovyShell(loader, new Binding(out: new PrintWriter(said, true)))
(1..2).each { shell.evaluate(new File(args[0])) }
println JsonOutput.toJson([said: said.toString(), project: project.described()])
